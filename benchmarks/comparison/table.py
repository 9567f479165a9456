"""Do the sides agree, and what are the results?"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from maskanim_jax.errors import UserError

LOSS, NORM, FRAME = 1e-3, 1e-2, 1 / 510
"""Largest allowed differences: of a loss and of a network's gradient norm
(relative), and of a pixel (half a grey level).
"""


def check(ours: Mapping[str, Mapping[str, float]], theirs: Mapping[str, Mapping[str, float]]) -> None:
    """Raises UserError when losses or gradient norms differ."""
    for kind, most in (("losses", LOSS), ("norms", NORM)):
        if ours[kind].keys() != theirs[kind].keys():
            raise UserError(
                f"the sides have different {kind} ({', '.join(ours[kind].keys() ^ theirs[kind].keys())}): fix this"
            )
        shares = {name: abs(ours[kind][name] - value) / abs(value) for name, value in theirs[kind].items() if value}
        for name, share in shares.items():
            if not share <= most:
                pair = f"{ours[kind][name]:.6g} here, {theirs[kind][name]:.6g} in PyTorch"
                raise UserError(
                    f"{kind} of {name} differ by {share:.1e}, more than {most:g} ({pair}): fix this before timing"
                )
        print(f"{kind} agree: " + ", ".join(f"{name} {share:.1e}" for name, share in shares.items()), flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown: median (smallest to largest) of both sides, and the
    median of the rounds' ratios.
    """

    def cell(values: list[float], unit: str = "") -> str:
        middle = f"{statistics.median(values):.4g} {unit}".strip()
        return middle if len(values) == 1 else f"{middle} ({min(values):.4g} to {max(values):.4g})"

    lines = ["| | ours | the other | ours / the other | goal |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        ours, other, ratio = cell(row["ours"], row["unit"]), cell(row["other"], row["unit"]), cell(row["ratios"])
        lines.append(f"| {row['what']} | {ours} | {other} | {ratio} | {row['goal'] or ''} |")
    return "\n".join(lines)
