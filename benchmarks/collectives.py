"""What do the devices exchange in one step? Counted from the compiled program."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

_ARRAY = re.compile(r"\b(?:pred|[suf]\d+|bf16)\[([\d,]*)\]")
_LINE = re.compile(
    r"= (?P<results>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|collective-permute|collective-broadcast|(?:ragged-)?all-to-all)(?:-start)?\("
)


class Collective(NamedTuple):
    """One operation between devices: its kind, and how many numbers a device receives (in
    the largest array, in all).
    """

    kind: str
    largest: int
    numbers: int


def collectives(program: str) -> list[Collective]:
    """All collectives in the text of a compiled program
    (`jitted.lower(...).compile().as_text()`); loops count once.
    """
    found = []
    for match in _LINE.finditer(program):
        sizes = [math.prod(int(d) for d in dims.split(",") if d) for dims in _ARRAY.findall(match["results"])]
        found.append(Collective(match["kind"], max(sizes), sum(sizes)))
    return found


def counted(found: list[Collective]) -> Mapping[str, int]:
    """The number of operations by kind."""
    return {kind: sum(each.kind == kind for each in found) for kind in sorted({each.kind for each in found})}
