"""How is a PyTorch checkpoint read without PyTorch, and without executing anything that is in it?

Both formats of `torch.save` are read: the zip (since 1.6) and the older stream of pickles (the published
VGG-19). A pickle is a program; here it may call a handful of names, all of which are this file's own harmless
stand-ins, and every other name is refused. Sizes are compared with the file before memory is taken.
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
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from maskanim_jax.errors import UserError, check_regular

MAX_BYTES = 4 << 30
_MAX_PICKLE = 8 << 20  # of the pickles themselves, which hold names and shapes but no numbers
_MAX_NODES = 1_000_000
_MAX_DEPTH = 64
_MAX_TUPLE = 1000  # values in a tuple and in the tuples inside it
_MAX_SKIPPED = 16 << 30  # bytes that are passed over in storages, which takes seconds for each GiB
# What the older format begins with: the pickle of its magic number.
_OLD_START = b"\x80\x02\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
_DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",  # the upper half of a float32; widened when read
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


# All that a damaged file can make the readers raise; none of it comes from code in the file.
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


class _Refused(Exception):
    """Something in the file that isn't plain data; the text completes "PATH can't be read: ..."."""


class _Storage(NamedTuple):
    key: str
    kind: str
    start: int  # in elements of the whole storage `key`
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Stored(dict):
    """Stands for an ordered dict; drops the attributes (`_metadata`) that torch hangs onto state dicts."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Name:
    """Stands for an allowed global: callable where the real one is, closed to the pickle otherwise."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.call = call

    def __call__(self, *args: object) -> object:
        if self.call is None:
            raise _Refused(f"it calls {self.name}")
        return self.call(*args)

    def __setstate__(self, state: object) -> None:
        raise _Refused(f"it changes {self.name}")


def is_torch_file(path: Path) -> bool:
    """Whether the first bytes are those of a zip or of the older torch format."""
    check_regular(path)
    with open(path, "rb") as file:
        start = file.read(len(_OLD_START))
    return start == _OLD_START or start[:4] == b"PK\x03\x04"


def read_tensors(path: Path, max_bytes: int = MAX_BYTES) -> dict[Any, Any]:
    """The checkpoint as nested dicts, lists and tuples of NumPy arrays, numbers, strings, booleans and None.

    Keys are str or int. Arrays are contiguous copies with torch's axes and dtype; bfloat16 becomes float32
    (exactly). Together they may take `max_bytes`. Raises UserError for what isn't a checkpoint of plain data,
    naming a forbidden global.
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
    except _Refused as error:
        raise UserError(f"{path} can't be read: {error}; give a checkpoint of tensors and plain values") from error
    except _DAMAGE as error:
        raise UserError(
            f"{path} isn't a complete PyTorch checkpoint ({str(error)[:200]}): download or copy it again"
        ) from error
    if not isinstance(result, dict):
        raise UserError(f"{path} holds a {type(result).__name__} instead of a dict of tensors: give a checkpoint")
    return result


_Reader = Callable[[_Storage], bytes]


def _read_zip(archive: zipfile.ZipFile) -> tuple[object, _Reader]:
    """The unpickled tree of stand-ins, and how to read the elements of a storage."""
    pickles = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _Refused("the zip has no data.pkl")
    folder = pickles[0][: -len("data.pkl")]
    if archive.getinfo(pickles[0]).file_size > _MAX_PICKLE:
        raise _Refused(f"its data.pkl is larger than {_MAX_PICKLE >> 20} MiB")
    order = folder + "byteorder"
    if order in archive.namelist() and archive.open(order).read(8) != b"little":
        raise _Refused("it was written by a big-endian machine")

    packed = [info for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
    if sum(info.file_size for info in packed) > (64 << 20) + 4 * sum(info.compress_size for info in packed):
        raise _Refused("unpacked it takes more memory than allowed")
    skipped_left = _MAX_SKIPPED

    def storage(of: _Storage) -> bytes:
        nonlocal skipped_left
        size = np.dtype(_DTYPES[of.kind]).itemsize
        info = archive.getinfo(f"{folder}data/{of.key}")
        if info.file_size < (of.start + of.length) * size:
            raise _Refused(f"storage {of.key} is shorter than it says")
        with archive.open(info) as file:
            skipped_left -= of.start * size
            if skipped_left < 0:
                raise _Refused("its tensors lie too far inside their storages")
            file.seek(of.start * size)
            return file.read(of.length * size)

    return _unpickle(archive.read(pickles[0])), storage


def _read_old(file: BinaryIO) -> tuple[object, _Reader]:
    """Five pickles: magic number, version, system, tree, keys; then each storage: int64 length, elements."""
    for _ in range(2):
        _next_pickle(file)
    system = _unpickle(_next_pickle(file))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _Refused("it was written by a big-endian machine")
    sizes: dict[str, int] = {}  # bytes of one element, by the key of the storage
    tree = _unpickle(_next_pickle(file), sizes)
    keys = _unpickle(_next_pickle(file))
    if not isinstance(keys, list):
        raise _Refused("its list of storages is damaged")
    at: dict[str, tuple[int, int]] = {}
    end = file.seek(0, io.SEEK_CUR)
    length = file.seek(0, io.SEEK_END)
    for key in keys:
        file.seek(end)
        (count,) = struct.unpack("<q", file.read(8))
        at[str(key)] = end + 8, count
        end += 8 + count * sizes[str(key)]
        if count < 0 or end > length:
            raise _Refused(f"it ends before the numbers of storage {key}")

    def storage(of: _Storage) -> bytes:
        start, count = at[of.key]
        if of.start + of.length > count:
            raise _Refused(f"storage {of.key} is shorter than it says")
        file.seek(start + of.start * sizes[of.key])
        return file.read(of.length * sizes[of.key])

    return tree, storage


def _next_pickle(file: BinaryIO) -> bytes:
    """The bytes of the pickle that begins here, found without running it; leaves the file behind its end."""
    begin = file.tell()
    data = file.read(_MAX_PICKLE)
    end = 0
    try:
        for number, (_, _, position) in enumerate(pickletools.genops(data)):
            end = (position or 0) + 1
            if number > _MAX_NODES:
                raise _Refused("it is nested too deeply or has too many entries")
    except ValueError:
        if len(data) == _MAX_PICKLE:
            raise _Refused(f"a pickle in it is larger than {_MAX_PICKLE >> 20} MiB") from None
        raise
    file.seek(begin + end)
    return data[:end]


def _unpickle(data: bytes, sizes: dict[str, int] | None = None) -> object:
    """Runs a pickle with stand-ins for what it may name; `sizes` collects each storage's element size."""
    _check_pickle(data)
    allowed = _Allowed()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            return allowed.find(module, name)

        def persistent_load(self, pid: object) -> _Storage:
            found = _storage(pid)
            if sizes is not None:
                sizes[found.key] = np.dtype(_DTYPES[found.kind]).itemsize
            return found

    return Unpickler(io.BytesIO(data)).load()


def _check_pickle(data: bytes) -> None:
    """Follows a pickle without running it; refuses what the unpickler would take unbounded time or memory for.

    A key of a dict is hashed at once, and hashing a tuple visits all that is in it: tuples that hold the same tuple twice, again
    and again, take for ever, and deep ones overflow the stack. Integers from 2^60 can be chosen to have equal hashes.
    """
    stack: list[int | None] = []  # how many values each tuple visits; None is a mark
    memo: dict[int, int] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if number > _MAX_NODES:
            raise _Refused("it is nested too deeply or has too many entries")
        if isinstance(argument, int) and abs(argument) >= 1 << 60:
            raise _Refused("it holds a huge integer")
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            index = len(memo) if name == "MEMOIZE" else int(argument or 0)
            # A memo index beyond the pickle's own length only serves to make the unpickler allocate.
            if index > len(data) or stack[-1] is None:
                raise _Refused("its memo is damaged")
            memo[index] = stack[-1]
        elif "GET" in name:
            stack.append(memo[int(argument or 0)])
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            taken: list[int] = []
            if pickletools.markobject in opcode.stack_before:
                while (top := stack.pop()) is not None:
                    taken.append(top)
                before = opcode.stack_before.index(pickletools.markobject)
            else:
                before = len(opcode.stack_before)
            for _ in range(before):
                if (top := stack.pop()) is not None:
                    taken.append(top)
                elif name != "POP":
                    raise _Refused("its stack is damaged")
            # What comes from a call may be a tuple of the arguments; other containers can't be hashed.
            visited = 1 + sum(taken) if "TUPLE" in name or name in ("REDUCE", "BINPERSID", "BUILD") else 1
            if visited > _MAX_TUPLE:
                raise _Refused("it is nested too deeply or has too many entries")
            is_mark = pickletools.markobject in opcode.stack_after
            stack.extend([None] if is_mark else [visited] * len(opcode.stack_after))


class _Allowed:
    """The names that a checkpoint may use, and a budget for what their calls copy."""

    def __init__(self) -> None:
        self.items_left = _MAX_NODES

    def find(self, module: str, name: str) -> _Name:
        full = f"{module}.{name}"
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return _Name(full, _rebuild)
        if full == "torch._utils._rebuild_parameter":
            return _Name(full, lambda data, *_: data)
        if full == "collections.OrderedDict":
            return _Name(full, lambda items=(): _Stored(self.copied(items)))
        if full == "torch.Size":
            return _Name(full, _size)
        if module == "torch" and name in _DTYPES:
            return _Name(full)
        raise _Refused(f"it wants to use {full[:200]}")

    def copied(self, items: object) -> list[Any]:
        if not isinstance(items, tuple | list) or len(items) > self.items_left:
            raise _Refused("it has too many entries")
        self.items_left -= len(items)
        return list(items)


def _size(items: object = ()) -> tuple[int, ...]:
    if not _naturals(items):
        raise _Refused("a size in it is damaged")
    return tuple(items)  # type: ignore[arg-type]


def _storage(pid: object) -> _Storage:
    """("storage", type, key, device, elements[, view]) as torch writes it; view: (key, first, elements)."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or not isinstance(pid[1], _Name):
        raise _Refused("it refers to something that isn't a storage")
    kind, key, start, count = pid[1].name.removeprefix("torch."), pid[2], 0, pid[4]
    if len(pid) == 6 and pid[5] is not None:
        _, start, count = pid[5]
    if kind not in _DTYPES or not isinstance(key, str | int) or not _naturals((start, count)):
        raise _Refused("a storage in it is damaged")
    return _Storage(str(key), kind, start, count)


def _naturals(values: object) -> bool:
    return isinstance(values, tuple | list) and all(type(v) is int and 0 <= v < 1 << 48 for v in values)


def _rebuild(storage: object, offset: object, shape: object, strides: object, *_: object) -> _Tensor:
    """What torch's own function of this name makes, as a description: nothing is read or allocated yet."""
    ok = isinstance(storage, _Storage) and _naturals((offset,)) and _naturals(shape) and _naturals(strides)
    if not ok or len(shape) != len(strides) or len(shape) > 16:  # type: ignore[arg-type]
        raise _Refused("a tensor in it is damaged")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))  # type: ignore[arg-type]


class _Plain:
    """Turns stand-ins into plain values, within limits of nodes, depth, bytes (pickles may repeat things)."""

    def __init__(self, storage: _Reader, max_bytes: int) -> None:
        self.storage = storage
        self.bytes_left = max_bytes
        self.nodes_left = _MAX_NODES

    def convert(self, value: object, depth: int) -> Any:
        self.nodes_left -= 1
        if self.nodes_left < 0 or depth > _MAX_DEPTH:
            raise _Refused("it is nested too deeply or has too many entries")
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, _Tensor):
            return self.array(value)
        if type(value) in (dict, _Stored):
            if wrong := [k for k in value if type(k) not in (str, int)]:  # type: ignore[attr-defined]
                raise _Refused(f"a key in it is a {type(wrong[0]).__name__}")
            return {k: self.convert(v, depth + 1) for k, v in value.items()}  # type: ignore[attr-defined]
        if type(value) in (list, tuple):
            return type(value)(self.convert(v, depth + 1) for v in value)  # type: ignore[call-arg, attr-defined]
        raise _Refused(f"it holds a {type(value).__name__}")

    def array(self, tensor: _Tensor) -> np.ndarray:
        storage, offset, shape, strides = tensor
        dtype = np.dtype(_DTYPES[storage.kind]).newbyteorder("<")
        count = 1
        for side in shape:
            count *= side
        self.bytes_left -= count * dtype.itemsize * (2 if storage.kind == "BFloat16Storage" else 1)
        if self.bytes_left < 0:
            raise _Refused("its tensors take more memory than allowed")
        if count == 0:
            return np.zeros(shape, np.float32 if storage.kind == "BFloat16Storage" else dtype)
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if last >= storage.length:
            raise _Refused(f"a tensor of shape {shape} reaches beyond its storage")
        # Only the tensor's own part of the storage is read: a checkpoint may keep many tensors in one.
        part = storage._replace(start=storage.start + offset, length=last - offset + 1)
        if part.length * dtype.itemsize > max(1 << 20, 8 * count * dtype.itemsize):
            raise _Refused(f"a tensor of shape {shape} is spread too thinly over its storage")
        elements = np.frombuffer(self.storage(part), dtype)
        if elements.size != part.length:
            raise _Refused(f"storage {storage.key} is shorter than it says")
        steps = tuple(step * dtype.itemsize for step in strides)
        result = np.lib.stride_tricks.as_strided(elements, shape, steps, writeable=False)
        if storage.kind == "BFloat16Storage":
            return (result.astype(np.uint32) << 16).view(np.float32)
        return np.array(result, dtype.newbyteorder("="), order="C")
