"""Which runs differ only in their seed? They count as one, whose values are averages over the
seeds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from maskanim_jax.reports.runs import Run, group_by

_SETTINGS = ("seed", "name", "train", "num_cpu_devices", "reconstruct", "animate", "shards", "num_threads", "prefetch")
"""Sections and fields (also of `data`) in which runs that count as several seeds may differ."""


class Seeds(NamedTuple):
    """One or more runs that differ only in their seed."""

    label: str
    runs: list[Run]


def by_seed(runs: Sequence[Run]) -> list[Seeds]:
    """All runs, those that differ only in their seed together, in order of first appearance."""
    found: list[Seeds] = []
    for group in group_by(runs, _without_seed):
        label = group[0].label
        if len(group) > 1:
            names = {re.sub(r"[-_. ]*(seed)?\d*$", "", run.label) for run in group}
            shared = names.pop() if len(names) == 1 else ""
            taken = f"{shared} ({len(group)} seeds)" in [each.label for each in found]
            label = f"{label if taken or not shared else shared} ({len(group)} seeds)"
        found.append(Seeds(label, group))
    return found


def _without_seed(run: Run) -> str:
    kept = {key: value for key, value in run.config.items() if key not in _SETTINGS}
    if isinstance(data := kept.get("data"), dict):
        kept["data"] = {key: value for key, value in data.items() if key not in _SETTINGS}
    return json.dumps(kept, sort_keys=True)
