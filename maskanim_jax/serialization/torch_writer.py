"""How is a checkpoint written that `torch.load(weights_only=True)` reads, without PyTorch?

It uses the zip format of `torch.save`: `data.pkl` describes the tree, and every tensor's data is in
its own file beside it. The few required pickle opcodes are written directly, because Python's
pickler can only name importable objects.
"""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.utils.paths import hidden_beside
from maskanim_jax.utils.progress import ProgressBar

_STORAGES = {
    "f8": "DoubleStorage",
    "f4": "FloatStorage",
    "f2": "HalfStorage",
    "i8": "LongStorage",
    "i4": "IntStorage",
    "i2": "ShortStorage",
    "i1": "CharStorage",
    "u1": "ByteStorage",
    "b1": "BoolStorage",
}


def write_tensors(path: Path, tree: Mapping[Any, Any]) -> None:
    """Writes nested dicts, lists and tuples of NumPy arrays, numbers, strings, booleans and None,
    which `read_tensors` reads back.

    Keys are str or int. Arrays keep shape and dtype (float, int up to 64 bits, uint8, bool). The
    file is written atomically. Raises UserError when it cannot be written, TypeError for
    unsupported values.
    """
    buffer = io.BytesIO()
    arrays: list[np.ndarray] = []
    buffer.write(pickle.PROTO + b"\x02")
    _write(buffer, tree, arrays)
    buffer.write(pickle.STOP)
    temporary = hidden_beside(path, str(os.getpid()))
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", buffer.getvalue())
            archive.writestr("archive/byteorder", "little")
            for number, array in enumerate(ProgressBar(arrays, desc="write", unit="tensor", disable=None)):
                little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
                archive.writestr(f"archive/data/{number}", little.tobytes())
            archive.writestr("archive/version", "3\n")
        os.replace(temporary, path)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{path} can't be written ({why}): free space or give another --output") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(out: io.BytesIO, value: Any, arrays: list[np.ndarray]) -> None:
    """Appends the opcodes that make `value`; its arrays go to `arrays`, numbered in order."""
    if value is None:
        out.write(pickle.NONE)
    elif isinstance(value, bool):
        out.write(pickle.NEWTRUE if value else pickle.NEWFALSE)
    elif isinstance(value, int):
        _write_int(out, value)
    elif isinstance(value, float):
        out.write(pickle.BINFLOAT + struct.pack(">d", value))
    elif isinstance(value, str):
        data = value.encode()
        out.write(pickle.BINUNICODE + struct.pack("<I", len(data)) + data)
    elif isinstance(value, np.ndarray | np.generic):
        _write_array(out, np.asarray(value), arrays)
    elif isinstance(value, Mapping):
        out.write(pickle.EMPTY_DICT + pickle.MARK)
        for key, item in value.items():
            if type(key) not in (str, int):
                raise TypeError(f"a key of a checkpoint can't be a {type(key).__name__}")
            _write(out, key, arrays)
            _write(out, item, arrays)
        out.write(pickle.SETITEMS)
    elif isinstance(value, list):
        out.write(pickle.EMPTY_LIST + pickle.MARK)
        for item in value:
            _write(out, item, arrays)
        out.write(pickle.APPENDS)
    elif isinstance(value, tuple):
        _write_tuple(out, value, arrays)
    else:
        raise TypeError(f"a checkpoint can't hold a {type(value).__name__}")


def _write_int(out: io.BytesIO, value: int) -> None:
    if -(1 << 31) <= value < 1 << 31:
        out.write(pickle.BININT + struct.pack("<i", value))
    else:
        data = pickle.encode_long(value)
        out.write(pickle.LONG1 + struct.pack("<B", len(data)) + data)


def _write_tuple(out: io.BytesIO, value: tuple[Any, ...], arrays: list[np.ndarray]) -> None:
    out.write(pickle.MARK)
    for item in value:
        _write(out, item, arrays)
    out.write(pickle.TUPLE)


def _write_array(out: io.BytesIO, array: np.ndarray, arrays: list[np.ndarray]) -> None:
    """A call of `torch._utils._rebuild_tensor_v2` on the array's own storage."""
    kind = _STORAGES.get(array.dtype.str[1:])
    if kind is None:
        raise TypeError(f"a checkpoint can't hold numbers of type {array.dtype}")
    strides, step = [], 1
    for side in reversed(array.shape):
        strides.append(step)
        step *= side
    out.write(_name("torch._utils", "_rebuild_tensor_v2") + pickle.MARK)
    out.write(pickle.MARK)  # reference to the storage
    _write(out, "storage", arrays)
    out.write(_name("torch", kind))
    for part in (str(len(arrays)), "cpu", array.size):
        _write(out, part, arrays)
    out.write(pickle.TUPLE + pickle.BINPERSID)
    for argument in (0, array.shape, tuple(reversed(strides)), False):  # offset, shape, strides, requires_grad
        _write(out, argument, arrays)
    out.write(_name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE)  # no backward hooks
    out.write(pickle.TUPLE + pickle.REDUCE)
    arrays.append(array)


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()
