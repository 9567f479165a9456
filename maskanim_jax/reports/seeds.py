"""How far apart are runs that differ only in their seed?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from maskanim_jax.reports.runs import Run, group_by

_SETTINGS = ("seed", "name", "train", "num_cpu_devices", "reconstruct", "animate", "shards", "num_threads", "prefetch")
"""Sections and fields (also of `data`) in which runs that count as several seeds may differ."""


def same_but_for_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups of at least two runs that differ only in their seed."""
    return [group for group in group_by(runs, _without_seed) if len(group) > 1]


def spread(runs: Sequence[Run], figures: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Mean, lowest and highest value of each metric; `figures` are those of `runs`."""
    values: dict[str, list[float]] = {}
    for row in figures:
        for metric, figure in row.items():
            values.setdefault(metric, []).append(figure["value"])
    return {
        "runs": [run.label for run in runs],
        "seeds": [run.config.get("seed") for run in runs],
        "figures": {
            metric: {"mean": float(np.mean(each)), "lowest": min(each), "highest": max(each)}
            for metric, each in values.items()
        },
    }


def _without_seed(run: Run) -> str:
    kept = {key: value for key, value in run.config.items() if key not in _SETTINGS}
    if isinstance(data := kept.get("data"), dict):
        kept["data"] = {key: value for key, value in data.items() if key not in _SETTINGS}
    return json.dumps(kept, sort_keys=True)
