"""How do runs compare? On the same held-out clips, with intervals over
clips and paired differences.

Runs are compared if their test data has the same fingerprint, and their cross-identity evaluations
if the drawn pairs are the same. Every interval is a percentile bootstrap over clips (or pairs). It
is seeded, so the same files give the same numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskanim_jax.metrics.bootstrap import DRAWS, SHARE, interval
from maskanim_jax.reports.page_parts import at
from maskanim_jax.reports.runs import Run, describe, group_by
from maskanim_jax.reports.seeds import same_but_for_seed, spread

REPEAT = "copying the source"
HIGHER = ("ssim", "psnr", "csim", "iou", "mask_iou")
"""Metrics for which higher is better."""
NEUTRAL = ("mask_mean", "mask_space", "mask_time", "known_joint_error", "leak", "leak_background")
"""Metrics that are shown but not compared."""
UNRANKED = ("shape_leak",)
"""Metrics whose differences are shown without a verdict: a change of the puppet's
position changes them, too.
"""
NO_FIGURES = ("frames", "name", "identity", "source", "driving")
SAME_TO_MANY = 4
"""Up to this many runs of a set, every pair is compared; with more, every run is
compared with the first.
"""

Entry = tuple[str, str, str, bool, dict[Any, dict[str, Any]]]
"""One row of a cross-identity evaluation: run, variant, start, whether it
is a reference, its pairs.
"""


def compare(runs: Sequence[Run]) -> dict[str, Any]:
    """All results as plain data: `runs` (description and cost), `sets` (reconstruction), `truth`
    (cross-identity evaluation).
    """
    return {
        "runs": [describe(run) for run in runs],
        "sets": [_set(members) for members in group_by(runs, _fingerprint)],
        "truth": [
            _cross_identity(members) for members in group_by([run for run in runs if run.truth], _cross_identity_key)
        ],
        "interval": f"bootstrap over clips or pairs, {DRAWS} resamples, {100 * SHARE:.0f} %",
    }


def better(metric: str) -> int:
    """-1 if lower is better, 1 if higher is better, 0 if neither; a back-end's
    name in brackets is ignored.
    """
    base = metric.partition("[")[0]
    return 0 if base in (*NEUTRAL, *UNRANKED) else 1 if base in HIGHER else -1


def _fingerprint(run: Run) -> str:
    return str(run.figures.get("data_fingerprint") or run.label)


def _cross_identity_key(run: Run) -> str:
    return json.dumps([run.truth.get(name) for name in ("data", "seed", "frame_size")], sort_keys=True)


def _set(members: Sequence[Run]) -> dict[str, Any]:
    """The reconstruction results of runs with the same test data."""
    clips = {run.label: _members(run.figures.get("clips"), ("name",)) for run in members}
    metrics = _metrics(row for rows in clips.values() for row in rows.values())
    own = [metric for metric in metrics if not metric.endswith("_copy_source")]
    rows = [{"run": run.label, "figures": _figures(clips[run.label], own)} for run in members]
    repeated = {m.removesuffix("_copy_source"): m for m in metrics if m.endswith("_copy_source")}
    first = clips[members[0].label]
    rows.append(
        {"run": REPEAT, "figures": {m: e for m, key in repeated.items() for e in _figures(first, [key]).values()}}
    )
    chosen = _run_pairs([run.label for run in members])
    differences = [
        *(_difference(one, other, clips[one], clips[other], m, m) for one, other in chosen for m in own),
        *(
            _difference(run.label, REPEAT, clips[run.label], clips[run.label], m, key)
            for run in members
            for m, key in repeated.items()
        ),
    ]
    shards = at(members[0].config, "data.shards")
    return {
        "name": Path(str(shards)).name if shards else members[0].label,
        "data_fingerprint": members[0].figures.get("data_fingerprint"),
        "clips": len(first),
        "frames": members[0].figures.get("frames"),
        "metrics": own,
        "rows": rows,
        "differences": [difference for difference in differences if difference],
        "seeds": _seeds(members, rows),
    }


def _cross_identity(members: Sequence[Run]) -> dict[str, Any]:
    """The cross-identity results of runs that were measured on the same pairs."""
    entries: list[Entry] = []
    for number, run in enumerate(members):
        for row in run.truth.get("rows", []):
            if not row["reference"] or not number:  # references are the same for all
                pairs = _members(row["pairs"], ("source", "driving"))
                label = row["variant"] if row["reference"] else run.label
                entries.append((label, row["variant"], row["start"], row["reference"], pairs))
    starts = list(dict.fromkeys(entry[2] for entry in entries))
    entries.sort(key=lambda entry: starts.index(entry[2]))
    there = _metrics(pair for entry in entries for pair in entry[4].values())
    defined = members[0].truth.get("definitions") or {}
    metrics = sorted(there, key=lambda metric: [*defined, *there].index(metric))
    rows = [
        {"run": run, "variant": variant, "start": start, "reference": reference, "figures": _figures(pairs, metrics)}
        for run, variant, start, reference, pairs in entries
    ]
    differences = _from_repeating(entries, metrics)
    for start in starts:
        ranked = [entry for entry in entries if entry[2] == start and not entry[3]]
        for one in ranked[1:]:
            names = (f"{ranked[0][0]}: {ranked[0][1]}", f"{one[0]}: {one[1]}")
            for metric in metrics:
                if found := _difference(*names, ranked[0][4], one[4], metric, metric):
                    differences.append({"start": start, **found})
    return {
        "name": str(members[0].config.get("name")),
        "pairs": len(entries[0][4]) if entries else 0,
        "definitions": members[0].truth.get("definitions", {}),
        "metrics": metrics,
        "rows": rows,
        "differences": differences,
        "seeds": _seeds_of_variants(members, rows),
    }


def _from_repeating(entries: Sequence[Entry], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The first variant of each run, compared with copying the source from the same start."""
    found = []
    repeated = {start: pairs for label, _, start, _, pairs in entries if label == REPEAT}
    first: dict[str, str] = {}
    for label, variant, start, reference, pairs in entries:
        if not reference and first.setdefault(label, variant) == variant and start in repeated:
            for metric in metrics:
                if one := _difference(f"{label}: {variant}", REPEAT, pairs, repeated[start], metric, metric):
                    found.append({"start": start, **one})
    return found


def _members(rows: Any, key: tuple[str, ...]) -> dict[Any, dict[str, Any]]:
    """The rows of a file by name; invalid entries are skipped."""
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {tuple(row.get(name) for name in key): row for row in found if row.get("frames")}


def _metrics(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of all numeric metrics, in order of first appearance."""
    return list(dict.fromkeys(name for row in rows for name, value in row.items() if _is_figure(name, value)))


def _is_figure(name: str, value: object) -> bool:
    return name not in NO_FIGURES and isinstance(value, int | float) and not isinstance(value, bool)


def _figures(rows: Mapping[Any, Mapping[str, Any]], metrics: Sequence[str]) -> dict[str, dict[str, float]]:
    """For each metric that any row has: mean over frames, interval over clips, number of clips."""
    found = {}
    for metric in metrics:
        there = [
            (float(row[metric]), float(row["frames"])) for row in rows.values() if _is_figure(metric, row.get(metric))
        ]
        there = [pair for pair in there if np.isfinite(pair[0])]
        if there:
            mean, low, high = interval([value for value, _ in there], [frames for _, frames in there])
            found[metric] = {"value": mean, "low": low, "high": high, "clips": len(there)}
    return found


def _run_pairs(labels: Sequence[str]) -> list[tuple[str, str]]:
    many = len(labels) > SAME_TO_MANY
    return [(a, b) for i, a in enumerate(labels) for b in labels[i + 1 :] if not many or i == 0]


def _difference(
    run: str, against: str, rows: Mapping[Any, Any], others: Mapping[Any, Any], metric: str, other_metric: str
) -> dict[str, Any] | None:
    """`run` minus `against` on the clips that both have; None if there are none, or
    for a metric of NEUTRAL.
    """
    direction = better(metric)
    common = [
        (rows[clip][metric] - others[clip][other_metric], rows[clip]["frames"])
        for clip in rows
        if clip in others
        and _is_figure(metric, rows[clip].get(metric))
        and _is_figure(other_metric, others[clip].get(other_metric))
    ]
    if not common or (not direction and metric not in UNRANKED):
        return None
    mean, low, high = interval([value for value, _ in common], [frames for _, frames in common])
    return {
        "run": run,
        "against": against,
        "metric": metric,
        "difference": mean,
        "low": low,
        "high": high,
        "clips": len(common),
        "better_on": sum(direction * difference > 0 for difference, _ in common) if direction else None,
        "verdict": _verdict(direction, low, high),
    }


def _verdict(direction: int, low: float, high: float) -> str:
    """The difference in words; the interval decides whether it is significant."""
    if low <= 0 <= high:
        return "no significant difference"
    if not direction:
        return "less" if high < 0 else "more"
    return "better" if direction * low > 0 else "worse"


def _seeds(members: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The spread over seeds of a set's rows, which are those of `members`."""
    figures = {row["run"]: row["figures"] for row in rows}
    return [spread(same, [figures[run.label] for run in same]) for same in same_but_for_seed(members)]


def _seeds_of_variants(members: Sequence[Run], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The spread over seeds of each start and variant."""
    figures = {(row["run"], row["start"], row["variant"]): row["figures"] for row in rows if not row["reference"]}
    found = []
    for same in same_but_for_seed(members):
        for _, start, variant in [key for key in figures if key[0] == same[0].label]:
            there = [run for run in same if (run.label, start, variant) in figures]
            if len(there) > 1:
                each = spread(there, [figures[run.label, start, variant] for run in there])
                found.append({"start": start, "variant": variant, **each})
    return found
