"""Which operations of a compiled step move the most bytes? Read from the optimised HLO
text of a TPU compilation.

Bytes of operands and results are counted in three ways. `logical` counts the shapes alone. `stored`
includes the padding of the tiles and is close to the compiler's "bytes accessed". `hbm` is the part
of `stored` that is read from or written to HBM at 819 GB/s; the rest stays in VMEM on the chip.
`cycles` is the compiler's estimate per operation. It excludes transfers and collectives, which run
in parallel to the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hlo_text import Array, Computation, Instruction, parse

HBM_BYTES_PER_SECOND = 819e9
"""HBM bandwidth of a v5e chip (Google Cloud's documentation, "TPU v5e")."""
FLOPS_PER_SECOND = 197e12
"""Peak rate of a v5e chip in bfloat16 (same source)."""
CYCLES_PER_SECOND = 1.5e9
"""The clock that corresponds to 197 TFLOP/s: 4 units of 128 x 128 multiplications."""

FREE = frozenset(
    ["parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id", "replica-id"]
)
"""Operations that move nothing: they only name existing arrays."""
FREE_CALLS = frozenset(["AllocateBuffer", "ConcatBitcast"])
"""Custom calls of the TPU compiler that only name memory."""
COLLECTIVES = frozenset(["all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"])


@dataclass
class Moved:
    """The bytes that one executed instruction moves; `label` is its origin in the program."""

    label: str
    kind: str
    logical: int
    stored: int
    hbm: int
    cycles: int
    instruction: Instruction


def moved(text: str) -> list[Moved]:
    """The traffic of each executed instruction: of the entry, of loop bodies times their count, and
    of a conditional's longest branch.
    """
    computations, entry = parse(text)
    return list(_walk(computations, computations[entry], 1))


def _walk(computations: dict[str, Computation], computation: Computation, times: int) -> Iterator[Moved]:
    for one in computation.instructions.values():
        if one.opcode in FREE or one.opcode.endswith("-done") or one.target in FREE_CALLS:
            continue
        bodies = [computations[name] for name in one.called if name in computations]
        if one.opcode == "while":
            for body in bodies:
                yield from _walk(computations, body, times * one.trips)
        elif one.opcode == "conditional":
            branches = [list(_walk(computations, body, times)) for body in bodies]
            yield from max(branches, key=lambda branch: sum(part.stored for part in branch), default=[])
        elif one.opcode == "call":
            for body in bodies:
                yield from _walk(computations, body, times)
        else:
            kind, arrays = _kind(one, bodies), _touched(computations, computation, one)
            sums = (times * sum(getattr(array, what) for array in arrays) for what in ("logical", "stored", "hbm"))
            label = _transferred(computations, computation, one) if kind == "transfer" else _label(one, bodies)
            yield Moved(label, kind, *sums, one.cycles * times, one)


def _touched(computations: dict[str, Computation], computation: Computation, one: Instruction) -> list[Array]:
    """The operands and results of an instruction.

    If a fusion only slices an operand, the slices count; for a transfer, both ends.
    """
    result = one.result
    if one.opcode in ("slice-start", "copy-start"):  # the result has source, destination and context, in either order
        source = computation.instructions[one.operands[0]].result[0]
        target = next((array for array in result if array.in_hbm != source.in_hbm), result[0])
        return [target, Array(target.logical, target.stored, source.in_hbm)]
    if one.opcode in ("slice", "dynamic-slice", "gather"):
        return result * 2
    touched = list(result)
    fused = computations.get(one.called[0]) if one.opcode == "fusion" and one.called else None
    inner = fused.parameters() if fused else []
    root = next((part for part in fused.instructions.values() if part.root), None) if fused else one
    while fused and root and root.opcode in ("bitcast", "copy") and root.operands[0] in fused.instructions:
        root = fused.instructions[root.operands[0]]
    overwritten = ""
    if root and root.opcode == "dynamic-update-slice":  # in place: only the update is written
        overwritten, update = root.operands[:2]
        written = (fused or computation).instructions[update].result[0]
        touched = [Array(written.logical, written.stored, result[0].in_hbm)]
    for i, name in enumerate(one.operands):
        source = computation.instructions.get(name)
        if source is None or overwritten == (inner[i].name if i < len(inner) else name):
            continue
        arrays = source.result
        if fused and i < len(inner):
            users = [user for user in fused.instructions.values() if inner[i].name in user.operands]
            if users and all(user.opcode in ("slice", "dynamic-slice", "gather") for user in users):
                sliced = [array for user in users for array in user.result]
                arrays = [Array(array.logical, array.stored, arrays[0].in_hbm) for array in sliced]
        touched += arrays
    return touched


def _kind(one: Instruction, bodies: Iterable[Computation]) -> str:
    """conv, reduce, elementwise, copy (to another layout), transfer (between HBM and VMEM),
    collective, or the operation's name.
    """
    inside = {part.opcode for body in bodies for part in body.instructions.values()} | {one.opcode}
    base = one.opcode.removesuffix("-start")
    if base in COLLECTIVES:
        return "collective"
    if one.opcode in ("copy-start", "slice-start"):
        return "transfer"
    for opcode, kind in (
        ("convolution", "conv"),
        ("select-and-scatter", "max pool back"),
        ("reduce-window", "max pool"),
    ):
        if opcode in inside:
            return kind
    if one.opcode == "copy":
        return "copy"
    if one.opcode == "fusion":
        return "reduce" if "reduce" in inside else "elementwise"
    return one.opcode


def _transferred(computations: dict[str, Computation], computation: Computation, one: Instruction) -> str:
    """A transfer has no op_name: it gets the label of the operation that reads the copy, or else of
    the one that made the original.
    """
    names, found = {one.name}, [computation.instructions.get(one.operands[0])]
    for other in computation.instructions.values():  # in execution order, so uses come later
        if names.intersection(other.operands):
            if other.opcode.endswith("-done") or other.target in FREE_CALLS or other.opcode in FREE:
                names.add(other.name)
            else:
                found.insert(0, other)
                break
    labels = [
        _label(other, [computations[name] for name in other.called if name in computations]) for other in found if other
    ]
    return next((label for label in labels if not label.startswith("unnamed")), "unnamed")


def _label(one: Instruction, bodies: Iterable[Computation]) -> str:
    """The op_name without JAX's wrappers and without the operation: `fine/up0/norm, back`."""
    name = one.op_name or next(
        (part.op_name for body in bodies for part in body.instructions.values() if part.op_name), ""
    )
    back = "transpose(" in name
    path = re.sub(r"\bjit\([\w.]*\)/?|\b(?:transpose|jvp|vmap|rematted_computation|checkpoint)\b|[()]", "", name)
    path = re.sub(r"\bcond/branch_\d_fun/|\bbody/closed_call/", "", path)
    parts = [part for part in path.split("/")[:-1] if part]
    return ("/".join(parts) or "unnamed") + (", back" if back else "")


@dataclass
class Group:
    """One row of the table."""

    label: str
    kind: str
    logical: int = 0
    stored: int = 0
    hbm: int = 0
    cycles: int = 0
    count: int = 0
    largest: Moved | None = None


def grouped(parts: Iterable[Moved], depth: int | None = None) -> list[Group]:
    """Sums by label and kind, most stored bytes first.

    `depth` is how many parts of a label's path are kept.
    """
    groups: dict[tuple[str, str], Group] = {}
    for part in parts:
        path, comma, back = part.label.partition(",")
        label = "/".join(path.split("/")[:depth]) + comma + back
        group = groups.setdefault((label, part.kind), Group(label, part.kind))
        for what in ("logical", "stored", "hbm", "cycles"):
            setattr(group, what, getattr(group, what) + getattr(part, what))
        group.count += 1
        if group.largest is None or part.stored > group.largest.stored:
            group.largest = part
    return sorted(groups.values(), key=lambda group: -group.stored)


def grouped_by_kind(parts: Iterable[Moved]) -> list[Group]:
    """Sums by kind alone: all convs, all layout copies."""
    return grouped(replace(part, label="everywhere") for part in parts)


def collectives(text: str) -> dict[str, dict[str, int]]:
    """{"all-reduce": {"count": ..., "bytes": ...}} of the executed program; the bytes
    of each result count once.
    """
    found: dict[str, dict[str, int]] = {}
    for part in moved(text):
        if part.kind == "collective":
            one = found.setdefault(part.instruction.opcode.removesuffix("-start"), {"count": 0, "bytes": 0})
            one["count"] += 1
            one["bytes"] += sum(array.logical for array in part.instruction.result)
    return found


def markdown(groups: list[Group], top: int = 25) -> str:
    """The first `top` groups, and a line with the sum of all groups."""
    lines = [
        "| from | kind | ops | stored MB | of it HBM | logical MB | kcycles | largest result |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for group in groups[:top]:
        shape = group.largest.instruction.shapes[:60] if group.largest else ""
        lines.append(f"| {group.label} | {group.kind} | {_figures([group])} | `{shape}` |")
    lines.append(f"| all {len(groups)} groups | | {_figures(groups)} | |")
    return "\n".join(lines)


def _figures(groups: list[Group]) -> str:
    count = sum(group.count for group in groups)
    stored, hbm, logical = (
        sum(getattr(group, what) for group in groups) / 1e6 for what in ("stored", "hbm", "logical")
    )
    return f"{count} | {stored:.0f} | {hbm:.0f} | {logical:.0f} | {sum(group.cycles for group in groups) / 1e3:.0f}"
