"""How is a pickle of nested dicts of NumPy arrays read without executing it?

Only three global names are allowed, each replaced by a stub defined here; all others are refused.
The only file that is read this way is first compared with its published hash.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from maskanim_jax.errors import UserError, check_size

_MAX_BYTES = 64 << 20
_MAX_DEPTH = 8


class _Type:
    """Stands for numpy.dtype, restricted to little-endian float32."""

    def __init__(self, kind: object, *_: object) -> None:
        if kind != "f4":
            raise pickle.UnpicklingError(f"it has an array of type {kind!s:.20}")

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or state[1:2] != ("<",):
            raise pickle.UnpicklingError("its numbers aren't little-endian")


class _Array:
    """Stands for an array that is filled by its state."""

    value: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array in it is damaged")
        _, shape, kind, columns_first, data = state
        if not isinstance(kind, _Type) or columns_first or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array in it is damaged")
        self.value = np.frombuffer(data, "<f4").reshape(shape)


class _Marker:
    """Stands for numpy.ndarray, which is named but never called."""


def _reconstruct(kind: object, *_: object) -> _Array:
    if kind is not _Marker:
        raise pickle.UnpicklingError("an array in it is damaged")
    return _Array()


_ALLOWED: dict[str, Any] = {
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.ndarray": _Marker,
    "numpy.dtype": _Type,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (full := f"{module}.{name}") not in _ALLOWED:
            raise pickle.UnpicklingError(f"it wants to use {full[:200]}")
        return _ALLOWED[full]


def read_numpy_pickle(path: Path) -> dict[str, np.ndarray]:
    """Arrays (float32) by their path of keys, such as "AlexNet_0/Conv_0/kernel".

    Raises UserError for anything but nested dicts of arrays.
    """
    try:
        check_size(path, _MAX_BYTES)
        tree = _Unpickler(io.BytesIO(path.read_bytes())).load()
        return dict(_leaves(tree, "", 0))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check the path and its permissions") from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, MemoryError) as error:
        raise UserError(f"{path} can't be read ({str(error)[:200]}): give a pickle of float32 arrays") from error


def _leaves(tree: object, path: str, depth: int) -> list[tuple[str, np.ndarray]]:
    if isinstance(tree, _Array) and tree.value is not None:
        return [(path, tree.value)]
    if not isinstance(tree, dict) or depth > _MAX_DEPTH:
        raise ValueError("it isn't nested dicts of arrays")
    return [leaf for key, value in tree.items() for leaf in _leaves(value, f"{path}/{key}".lstrip("/"), depth + 1)]
