"""How are the weights of an installed network read? From its published file, with safe readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.pretrained.install import find

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


def find_arrays(name: str, read: Callable[[Path], Arrays], shapes: Shapes, cache: Path | None = None) -> Arrays:
    """The float32 arrays of an installed network, read with its `read`, with the
    names and shapes of `shapes`.

    Raises UserError if the network is not in the cache or its file has other arrays.
    """
    (path,) = find(name, cache)
    return checked(read(path), shapes, path)


def checked(arrays: Mapping[str, np.ndarray], shapes: Shapes, path: Path) -> Arrays:
    """The arrays as contiguous float32.

    Raises UserError for one that is missing, misshapen or not finite.
    """
    result = {}
    for key, shape in shapes.items():
        array = arrays.get(key)
        if array is None or array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(f"{path} has no valid array {key} of shape {shape}: give another file")
        result[key] = np.ascontiguousarray(array, np.float32)
    return result
