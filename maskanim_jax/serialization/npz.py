"""How is an untrusted npz file read?

An npz is a zip of arrays, each with a header that declares its shape. Both may declare far more
data than the file holds, so the declared sizes are added up before memory is allocated. Nothing in
the file is executed; arrays of Python objects are refused.
"""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Container
from pathlib import Path

import numpy as np

from maskanim_jax.errors import UserError, check_regular

MAX_BYTES = 4 << 30
# Everything that zipfile and NumPy raise for damaged files; deeply nested headers exhaust the parser's memory or depth.
_DAMAGE = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, SyntaxError, OverflowError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, tokenize.TokenError),
)


def read_npz(
    path: Path, hint: str, max_bytes: int = MAX_BYTES, only: Container[str] | None = None
) -> dict[str, np.ndarray]:
    """All arrays of the file by name, or `only` some, with at most `max_bytes` bytes together.

    Raises UserError that ends with `hint`; FileNotFoundError.
    """
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            if (declared := sum(info.file_size for info in archive.infolist())) > max_bytes:
                raise UserError(
                    f"{path} can't be read (unpacked it has {declared:,} bytes, {max_bytes:,} are allowed): {hint}"
                )
            entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            return {name: _array(archive, info) for name, info in entries.items() if only is None or name in only}
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise UserError(f"{path} can't be read ({reason}): {hint}") from error


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if header is None:
            raise ValueError(f"{info.filename} has a header of version {version}")
        shape, fortran, dtype = header(file)
        if dtype.hasobject:
            raise ValueError(f"{info.filename} holds Python objects")
        count = 1
        for side in shape:
            count *= side
        # Checked before allocating memory: a shape is only a few digits, and its data must fit into the zip entry.
        if min((0, *shape)) < 0 or count * dtype.itemsize > info.file_size:
            raise ValueError(f"{info.filename} has a shape of {shape}, more than its {info.file_size:,} bytes")
        data = file.read()
    if len(data) != count * dtype.itemsize:
        raise ValueError(f"{info.filename} has {len(data):,} bytes instead of {count * dtype.itemsize:,}")
    array = np.frombuffer(data, dtype, count) if dtype.itemsize else np.empty(count, dtype)
    return array.reshape(shape, order="F" if fortran else "C").copy()
