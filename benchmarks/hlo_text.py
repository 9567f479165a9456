"""How is the optimised HLO text of a compiled step parsed? Into computations, instructions,
arrays and their memory.

A TPU has two memories: HBM, off the chip (16 GB at 819 GB/s on a v5e), and VMEM, on the chip, which
the text marks with S(1). Arrays are stored in tiles, T(8,128) over the two innermost axes, so a
last axis of 3 channels can take the space of 128.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

_BITS = {"pred": 8, "token": 0, "s4": 4, "u4": 4, "c64": 64, "c128": 128}
_ARRAY = re.compile(r"([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,]*)\](?:\{([^}]*)\})?")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = ")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{\s*$")
_NAME = re.compile(r"%([\w.-]+)")
_CALLED = re.compile(r"(?:calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")


@dataclass(frozen=True)
class Array:
    """One array of an instruction: bytes by shape, bytes as stored, and whether it is in HBM."""

    logical: int
    stored: int
    in_hbm: bool

    @property
    def hbm(self) -> int:
        """The bytes that reading or writing it moves to or from HBM."""
        return self.stored if self.in_hbm else 0


@dataclass
class Instruction:
    """One line of the text; `cycles` is the compiler's estimate, 0 if there is none."""

    name: str
    opcode: str
    result: list[Array]
    shapes: str
    operands: list[str]
    called: list[str]
    op_name: str
    target: str
    cycles: int
    trips: int
    root: bool


@dataclass
class Computation:
    """A named list of instructions, parameters in order."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)

    def parameters(self) -> list[Instruction]:
        """The parameters in the order of their numbers, which the text has
        in the place of operands.
        """
        found = [one for one in self.instructions.values() if one.opcode == "parameter"]
        return sorted(found, key=lambda one: int(one.operands[0]))


def parse_arrays(text: str) -> list[Array]:
    """Every array of a type such as `(bf16[2,8]{1,0:T(8,128)(2,1)S(1)}, u32[])`."""
    return [_array(*match.groups()) for match in _ARRAY.finditer(text)]


def _array(kind: str, sides: str, layout: str | None) -> Array:
    digits = re.search(r"\d+", kind)
    bits = _BITS.get(kind, int(digits[0]) if digits else 32)
    shape = [int(side) for side in sides.split(",") if side]
    order, _, rest = (layout or "").partition(":")
    spot = re.search(r"S\((\d+)\)", rest)
    tile = re.search(r"T\(([\d,]+)\)", rest)
    padded = [shape[int(axis)] for axis in order.split(",") if axis] or shape[::-1]  # innermost axis first
    if tile:
        for i, side in enumerate(reversed([int(side) for side in tile[1].split(",")])):
            if i < len(padded):
                padded[i] = math.ceil(padded[i] / side) * side
            else:
                padded.append(side)
    return Array(math.prod(shape) * bits // 8, math.prod(padded) * bits // 8, spot is None or spot[1] == "0")


def _closing(text: str, start: int) -> int:
    """The index after the bracket that closes the one at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if not depth:
            return i + 1
    return len(text)


def parse(text: str) -> tuple[dict[str, Computation], str]:
    """All computations by name, and the entry's name; raises ValueError
    when the text has no entry.
    """
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            current = computations[head[2]] = Computation(head[2])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (match := _LINE.match(line)):
            one = _instruction(line, match)
            current.instructions[one.name] = one
    if not entry:
        raise ValueError("no ENTRY computation: this is not the text of a compiled program")
    return computations, entry


def _instruction(line: str, match: re.Match[str]) -> Instruction:
    start = match.end()
    end = _closing(line, start) if line[start] == "(" else line.index(" ", start)
    opened = line.index("(", end)
    closed = _closing(line, opened)
    inside, rest = line[opened + 1 : closed - 1], line[closed:]
    opcode = line[end:opened].strip()
    branches = _BRANCHES.search(rest)
    op_name = re.search(r'op_name="((?:[^"\\]|\\.)*)"', rest)
    target = re.search(r'custom_call_target="([^"]+)"', rest)
    cycles = re.search(r'"estimated_cycles":"(\d+)"', rest)
    trips = re.search(r'"known_trip_count":\{"n":"(\d+)"', rest)
    return Instruction(
        name=match[2],
        opcode=opcode,
        result=parse_arrays(line[start:end]),
        shapes=re.sub(r"\{[^}]*\}|/\*[^*]*\*/", "", line[start:end]),
        operands=[inside] if opcode == "parameter" else _NAME.findall(inside),
        called=_CALLED.findall(rest) + (_NAME.findall(branches[1]) if branches else []),
        op_name=op_name[1] if op_name else "",
        target=target[1] if target else "",
        cycles=int(cycles[1]) if cycles else 0,
        trips=int(trips[1]) if trips else 1,
        root=bool(match[1]),
    )
