"""By how much is one run better than another? Means with intervals over clips, and paired
differences on the same clips.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskanim_jax.metrics.bootstrap import interval

HIGHER = ("ssim", "psnr", "csim", "iou", "mask_iou")
"""Metrics for which higher is better."""
NEUTRAL = ("mask_mean", "mask_space", "mask_time", "known_joint_error", "leak", "leak_background")
"""Metrics that are shown but not compared."""
UNRANKED = ("shape_leak",)
"""Metrics whose differences are shown without a verdict: a change of the puppet's
position changes them, too.
"""
NO_FIGURES = ("frames", "name", "identity", "source", "driving")

Clips = Mapping[Any, Mapping[str, Any]]
"""The rows of one run's metrics file by clip or pair; `frames` is the weight of a row."""


@dataclass(frozen=True)
class Compared:
    """One side of a comparison: a run, or several that differ only in their seed."""

    label: str
    seeds: Sequence[Clips]

    @functools.cached_property
    def clips(self) -> Clips:
        """The metrics of each clip, averaged over the seeds that have it."""
        return self.seeds[0] if len(self.seeds) == 1 else _averaged(self.seeds)


def better(metric: str) -> int:
    """-1 if lower is better, 1 if higher is better, 0 if neither; a back-end's
    name in brackets is ignored.
    """
    base = metric.partition("[")[0]
    return 0 if base in (*NEUTRAL, *UNRANKED) else 1 if base in HIGHER else -1


def metric_names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all numeric metrics, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name, value in row.items() if _is_figure(name, value)))


def figures(clips: Clips, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each metric that any clip has: mean over frames, interval over clips, number of clips."""
    found = {}
    for metric in metrics:
        there = [
            (float(row[metric]), float(row["frames"])) for row in clips.values() if _is_figure(metric, row.get(metric))
        ]
        there = [pair for pair in there if np.isfinite(pair[0])]
        if there:
            mean, low, high = interval([value for value, _ in there], [frames for _, frames in there])
            found[metric] = {"value": mean, "low": low, "high": high, "clips": len(there)}
    return found


def figures_over_seeds(one: Compared, metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures of the average over seeds, each with the `lowest` and `highest` value of a single
    seed.
    """
    found = figures(one.clips, metrics)
    single = [figures(clips, metrics) for clips in one.seeds]
    for metric, figure in found.items():
        values = [each[metric]["value"] for each in single if metric in each]
        figure |= {"lowest": min(values), "highest": max(values)}
    return found


def difference(one: Compared, other: Compared, metric: str, other_metric: str | None = None) -> dict[str, Any] | None:
    """`one` minus `other` on the clips that both have; None if there are none, or for a metric
    of NEUTRAL.

    With several seeds, values are averaged over the seeds first. `lowest` and `highest` are the
    differences of single seeds, the first seed of one side against the first of the other.
    """
    direction, other_metric = better(metric), other_metric or metric
    common = _pairs(one.clips, other.clips, metric, other_metric)
    if not common or (not direction and metric not in UNRANKED):
        return None
    mean, low, high = interval([value for value, _ in common], [frames for _, frames in common])
    found = {
        "run": one.label,
        "against": other.label,
        "metric": metric,
        "difference": mean,
        "low": low,
        "high": high,
        "clips": len(common),
        "better_on": sum(direction * each > 0 for each, _ in common) if direction else None,
        "verdict": _verdict(direction, low, high),
    }
    if single := _of_single_seeds(one, other, metric, other_metric):
        found |= {"lowest": min(single), "highest": max(single)}
    return found


def _averaged(seeds: Sequence[Clips]) -> Clips:
    found: dict[Any, dict[str, Any]] = {}
    for clip in dict.fromkeys(clip for clips in seeds for clip in clips):
        rows = [clips[clip] for clips in seeds if clip in clips]
        found[clip] = {"frames": rows[0]["frames"]}
        for metric in metric_names(rows):
            values = [row[metric] for row in rows if _is_figure(metric, row.get(metric))]
            found[clip][metric] = float(np.mean(values))
    return found


def _of_single_seeds(one: Compared, other: Compared, metric: str, other_metric: str) -> list[float]:
    """The difference of each seed; empty if there is only one, or another number on each side."""
    count = max(len(one.seeds), len(other.seeds))
    sides = [list(side.seeds) * count if len(side.seeds) == 1 else list(side.seeds) for side in (one, other)]
    if count == 1 or len(sides[0]) != len(sides[1]):
        return []
    all_pairs = [_pairs(rows, others, metric, other_metric) for rows, others in zip(*sides, strict=True)]
    return [
        sum(value * frames for value, frames in pairs) / sum(frames for _, frames in pairs)
        for pairs in all_pairs
        if pairs
    ]


def _pairs(rows: Clips, others: Clips, metric: str, other_metric: str) -> list[tuple[float, float]]:
    """Difference and weight of each clip that both have."""
    return [
        (rows[clip][metric] - others[clip][other_metric], rows[clip]["frames"])
        for clip in rows
        if clip in others
        and _is_figure(metric, rows[clip].get(metric))
        and _is_figure(other_metric, others[clip].get(other_metric))
    ]


def _is_figure(name: str, value: object) -> bool:
    return name not in NO_FIGURES and isinstance(value, int | float) and not isinstance(value, bool)


def _verdict(direction: int, low: float, high: float) -> str:
    """The difference in words; the interval decides whether it is significant."""
    if low <= 0 <= high:
        return "no significant difference"
    if not direction:
        return "less" if high < 0 else "more"
    return "better" if direction * low > 0 else "worse"
