"""How is a pickle of torch.save interpreted without executing untrusted code?

A pickle is a program. Here it may call only a few global names, each replaced by a harmless stub;
every other name is refused. Its opcodes are checked before it runs, so that time and memory are
bounded. `torch_reader` reads the files.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

MAX_NODES = 1_000_000
_MAX_TUPLE = 1000  # values in a tuple, nested tuples included
DTYPES = {
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
"""NumPy's types by storage name."""


class Refused(Exception):
    """The file contains something other than plain data; the text completes
    "PATH can't be read: ...".
    """


class Storage(NamedTuple):
    """A range of a storage that has not been read yet."""

    key: str
    kind: str
    start: int  # in elements of storage `key`
    length: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Stored(dict):
    """Stands for an ordered dict; drops the attributes (`_metadata`) that
    PyTorch adds to state dicts.
    """

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        pass


class _Name:
    """Stub for an allowed global: callable if the real one is, otherwise
    inaccessible to the pickle.
    """

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any] | None = None) -> None:
        self.name = name
        self.call = call

    def __call__(self, *args: object) -> object:
        if self.call is None:
            raise Refused(f"it calls {self.name}")
        return self.call(*args)

    def __setstate__(self, state: object) -> None:
        raise Refused(f"it changes {self.name}")


def unpickle(data: bytes, sizes: dict[str, int] | None = None) -> object:
    """Runs a pickle with stubs for the allowed globals; `sizes` collects
    each storage's element size.
    """
    _check_pickle(data)
    allowed = _Allowed()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            return allowed.find(module, name)

        def persistent_load(self, pid: object) -> Storage:
            found = _storage(pid)
            if sizes is not None:
                sizes[found.key] = np.dtype(DTYPES[found.kind]).itemsize
            return found

    return Unpickler(io.BytesIO(data)).load()


def _check_pickle(data: bytes) -> None:
    """Checks a pickle's opcodes without running it; refuses unbounded time or memory.

    A dict key is hashed at once, and hashing a tuple visits all its elements: tuples that
    repeatedly contain the same tuple twice take exponential time, and deep ones overflow the stack.
    Integers from 2^60 can be chosen to collide.
    """
    stack: list[int | None] = []  # how many values each tuple contains; None is a mark
    memo: dict[int, int] = {}
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        name = opcode.name
        if number > MAX_NODES:
            raise Refused("it is nested too deeply or has too many entries")
        if isinstance(argument, int) and abs(argument) >= 1 << 60:
            raise Refused("it holds a huge integer")
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            index = len(memo) if name == "MEMOIZE" else int(argument or 0)
            # A memo index beyond the pickle's length could only make the unpickler allocate memory.
            if index > len(data) or stack[-1] is None:
                raise Refused("its memo is damaged")
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
                    raise Refused("its stack is damaged")
            # The result of a call may be a tuple of its arguments; other containers can't be hashed.
            visited = 1 + sum(taken) if "TUPLE" in name or name in ("REDUCE", "BINPERSID", "BUILD") else 1
            if visited > _MAX_TUPLE:
                raise Refused("it is nested too deeply or has too many entries")
            is_mark = pickletools.markobject in opcode.stack_after
            stack.extend([None] if is_mark else [visited] * len(opcode.stack_after))


class _Allowed:
    """The global names that a checkpoint may use, with a budget for what their calls copy."""

    def __init__(self) -> None:
        self.items_left = MAX_NODES

    def find(self, module: str, name: str) -> _Name:
        full = f"{module}.{name}"
        if full in ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor"):
            return _Name(full, _rebuild)
        if full == "torch._utils._rebuild_parameter":
            return _Name(full, lambda data, *_: data)
        if full == "collections.OrderedDict":
            return _Name(full, lambda items=(): Stored(self.copied(items)))
        if full == "torch.Size":
            return _Name(full, _size)
        if module == "torch" and name in DTYPES:
            return _Name(full)
        raise Refused(f"it wants to use {full[:200]}")

    def copied(self, items: object) -> list[Any]:
        if not isinstance(items, tuple | list) or len(items) > self.items_left:
            raise Refused("it has too many entries")
        self.items_left -= len(items)
        return list(items)


def _size(items: object = ()) -> tuple[int, ...]:
    if not _naturals(items):
        raise Refused("a size in it is damaged")
    return tuple(items)  # type: ignore[arg-type]


def _storage(pid: object) -> Storage:
    """Resolves ("storage", type, key, device, elements[, view]), as PyTorch writes it;
    view: (key, first, elements).
    """
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or not isinstance(pid[1], _Name):
        raise Refused("it refers to something that isn't a storage")
    kind, key, start, count = pid[1].name.removeprefix("torch."), pid[2], 0, pid[4]
    if len(pid) == 6 and pid[5] is not None:
        _, start, count = pid[5]
    if kind not in DTYPES or not isinstance(key, str | int) or not _naturals((start, count)):
        raise Refused("a storage in it is damaged")
    return Storage(str(key), kind, start, count)


def _naturals(values: object) -> bool:
    return isinstance(values, tuple | list) and all(type(v) is int and 0 <= v < 1 << 48 for v in values)


def _rebuild(storage: object, offset: object, shape: object, strides: object, *_: object) -> Tensor:
    """Describes the result of the PyTorch function of this name; nothing
    is read or allocated yet.
    """
    ok = isinstance(storage, Storage) and _naturals((offset,)) and _naturals(shape) and _naturals(strides)
    if not ok or len(shape) != len(strides) or len(shape) > 16:  # type: ignore[arg-type]
        raise Refused("a tensor in it is damaged")
    return Tensor(storage, offset, tuple(shape), tuple(strides))  # type: ignore[arg-type]
