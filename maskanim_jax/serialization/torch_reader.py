"""How is a PyTorch checkpoint read without PyTorch, and without executing its contents?

Both formats of `torch.save` are supported: the zip (since 1.6) and the older stream of pickles (the
published VGG-19). `torch_unpickler` interprets the pickles. Declared sizes are compared with the
file before memory is allocated.
"""

from __future__ import annotations

import io
import lzma
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from maskanim_jax.errors import UserError, check_regular
from maskanim_jax.serialization.torch_unpickler import DTYPES, MAX_NODES, Refused, Storage, Stored, Tensor, unpickle

MAX_BYTES = 4 << 30
_MAX_PICKLE = 8 << 20  # size of the pickles, which have names and shapes but no tensor data
_MAX_DEPTH = 64
_MAX_SKIPPED = 16 << 30  # bytes that may be skipped in storages, which takes seconds per GiB
# The start of the older format: the pickle of its magic number.
_OLD_START = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."


# Everything that the readers raise for damaged files; none of it comes from code in the file.
_DAMAGE = (
    *(
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        pickle.UnpicklingError,
        struct.error,
        EOFError,
        ValueError,
        TypeError,
        LookupError,
    ),
    *(AttributeError, NotImplementedError, RuntimeError, OverflowError, MemoryError),
)


def is_torch_file(path: Path) -> bool:
    """Whether the first bytes are those of a zip or of the older torch format."""
    check_regular(path)
    with open(path, "rb") as file:
        start = file.read(len(_OLD_START))
    return start == _OLD_START or start[:4] == b"PK\x03\x04"


def read_tensors(path: Path, max_bytes: int = MAX_BYTES) -> dict[Any, Any]:
    """The checkpoint as nested dicts, lists and tuples of NumPy arrays, numbers, strings, booleans
    and None.

    Keys are str or int. Arrays are contiguous copies with torch's axes and dtype; bfloat16 becomes
    float32 (exactly). Together they may take `max_bytes`. Raises UserError, which names a forbidden
    global, for a file that is not a checkpoint of plain data.
    """
    try:
        check_regular(path)
        with open(path, "rb") as file, ExitStack() as stack:
            start = file.read(len(_OLD_START))
            file.seek(0)
            if start == _OLD_START:
                tree, storage = _read_old(file)
            else:
                archive = stack.enter_context(zipfile.ZipFile(file))
                tree, storage = _read_zip(archive)
            result = _Plain(storage, max_bytes).convert(tree, 0)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{path} can't be read ({why}): check the path and its permissions") from error
    except Refused as error:
        raise UserError(f"{path} can't be read: {error}; give a checkpoint of tensors and plain values") from error
    except _DAMAGE as error:
        raise UserError(
            f"{path} isn't a complete PyTorch checkpoint ({str(error)[:200]}): download or copy it again"
        ) from error
    if not isinstance(result, dict):
        raise UserError(f"{path} holds a {type(result).__name__} instead of a dict of tensors: give a checkpoint")
    return result


def strings_in(path: Path) -> frozenset[str]:
    """The strings in a checkpoint's pickle, such as tensor names, without running it; empty if it
    is malformed.

    Used to describe a file that `read_tensors` refuses.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(_OLD_START)) == _OLD_START:
                file.seek(0)
                data = [_next_pickle(file) for _ in range(4)][-1]
            else:
                with zipfile.ZipFile(file) as archive:
                    (name,) = (each for each in archive.infolist() if each.filename.endswith("data.pkl"))
                    data = archive.read(name) if name.file_size <= _MAX_PICKLE else b""
        texts = set()
        for number, (_, argument, _) in enumerate(pickletools.genops(data)):
            if number > MAX_NODES:
                break
            if isinstance(argument, str):
                texts.add(argument)
        return frozenset(texts)
    except (OSError, Refused, *_DAMAGE):
        return frozenset()


_Reader = Callable[[Storage], bytes]


def _read_zip(archive: zipfile.ZipFile) -> tuple[object, _Reader]:
    """The unpickled tree of stand-ins, and how to read the elements of a storage."""
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise Refused("the zip has no data.pkl")
    folder = pickles[0][: -len("data.pkl")]
    if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE:
        raise Refused(f"its data.pkl is larger than {_MAX_PICKLE >> 20} MiB")
    order = folder + "byteorder"
    if order in archive.namelist() and archive.open(order).read(8) != b"little":
        raise Refused("it was written by a big-endian machine")

    packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    if sum(info.file_size for info in packed) > (64 << 20) + 4 * sum(info.compress_size for info in packed):
        raise Refused("unpacked it takes more memory than allowed")
    skipped_left = _MAX_SKIPPED

    def storage(of: Storage) -> bytes:
        nonlocal skipped_left
        size = np.dtype(DTYPES[of.kind]).itemsize
        info = archive.getinfo(f"{folder}data/{of.key}")
        if info.file_size < (of.start + of.length) * size:
            raise Refused(f"storage {of.key} is shorter than declared")
        with archive.open(info) as file:
            skipped_left -= of.start * size
            if skipped_left < 0:
                raise Refused("its tensors lie too far inside their storages")
            file.seek(of.start * size)
            return file.read(of.length * size)

    return unpickle(archive.read(pickles[0])), storage


def _read_old(file: BinaryIO) -> tuple[object, _Reader]:
    """Five pickles: magic number, version, system, tree, keys; then each storage: int64 length,
    elements.
    """
    for _ in range(2):
        _next_pickle(file)
    system = unpickle(_next_pickle(file))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise Refused("it was written by a big-endian machine")
    sizes: dict[str, int] = {}  # bytes per element, by storage key
    tree = unpickle(_next_pickle(file), sizes)
    keys = unpickle(_next_pickle(file))
    if not isinstance(keys, list):
        raise Refused("its list of storages is damaged")
    at: dict[str, tuple[int, int]] = {}
    end = file.seek(0, io.SEEK_CUR)
    length = file.seek(0, io.SEEK_END)
    for key in keys:
        file.seek(end)
        (count,) = struct.unpack("<q", file.read(8))
        at[str(key)] = end + 8, count
        end += 8 + count * sizes[str(key)]
        if count < 0 or end > length:
            raise Refused(f"it ends before the data of storage {key}")

    def storage(of: Storage) -> bytes:
        start, count = at[of.key]
        if of.start + of.length > count:
            raise Refused(f"storage {of.key} is shorter than declared")
        file.seek(start + of.start * sizes[of.key])
        return file.read(of.length * sizes[of.key])

    return tree, storage


def _next_pickle(file: BinaryIO) -> bytes:
    """The bytes of the pickle at this position, found without running it; the file is
    then at the pickle's end.
    """
    begin = file.tell()
    data = file.read(_MAX_PICKLE)
    end = 0
    try:
        for number, (_, _, position) in enumerate(pickletools.genops(data)):
            end = (position or 0) + 1
            if number > MAX_NODES:
                raise Refused("it is nested too deeply or has too many entries")
    except ValueError:
        if len(data) == _MAX_PICKLE:
            raise Refused(f"a pickle in it is larger than {_MAX_PICKLE >> 20} MiB") from None
        raise
    file.seek(begin + end)
    return data[:end]


class _Plain:
    """Turns stand-ins into plain values, within limits of nodes, depth, bytes (pickles may repeat
    things).
    """

    def __init__(self, storage: _Reader, max_bytes: int) -> None:
        self.storage = storage
        self.bytes_left = max_bytes
        self.nodes_left = MAX_NODES

    def convert(self, value: object, depth: int) -> Any:
        self.nodes_left -= 1
        if self.nodes_left < 0 or depth > _MAX_DEPTH:
            raise Refused("it is nested too deeply or has too many entries")
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Tensor):
            return self.array(value)
        if type(value) in (dict, Stored):
            if wrong := [k for k in value if type(k) not in (str, int)]:  # type: ignore[attr-defined]
                raise Refused(f"a key in it is a {type(wrong[0]).__name__}")
            return {k: self.convert(v, depth + 1) for k, v in value.items()}  # type: ignore[attr-defined]
        if type(value) in (list, tuple):
            return type(value)(self.convert(v, depth + 1) for v in value)  # type: ignore[call-arg, attr-defined]
        raise Refused(f"it holds a {type(value).__name__}")

    def array(self, tensor: Tensor) -> np.ndarray:
        storage, offset, shape, strides = tensor
        dtype = np.dtype(DTYPES[storage.kind]).newbyteorder("<")
        count = 1
        for side in shape:
            count *= side
        self.bytes_left -= count * dtype.itemsize * (2 if storage.kind == "BFloat16Storage" else 1)
        if self.bytes_left < 0:
            raise Refused("its tensors take more memory than allowed")
        if count == 0:
            return np.zeros(shape, np.float32 if storage.kind == "BFloat16Storage" else dtype)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= storage.length:
            raise Refused(f"a tensor of shape {shape} reaches beyond its storage")
        # Only the tensor's part of the storage is read, since many tensors may share one.
        part = storage._replace(start=storage.start + offset, length=last - offset + 1)
        if part.length * dtype.itemsize > max(1 << 20, 8 * count * dtype.itemsize):
            raise Refused(f"a tensor of shape {shape} is spread too thinly over its storage")
        elements = np.frombuffer(self.storage(part), dtype)
        if elements.size != part.length:
            raise Refused(f"storage {storage.key} is shorter than declared")
        steps = tuple(step * dtype.itemsize for step in strides)
        result = np.lib.stride_tricks.as_strided(elements, shape, steps, writeable=False)
        if storage.kind == "BFloat16Storage":
            return (result.astype(np.uint32) << 16).view(np.float32)
        return np.array(result, dtype.newbyteorder("="), order="C")
