"""How do runs compare? On the same held-out clips, with intervals over
clips and paired differences.

Runs are compared if their test data has the same fingerprint, and their cross-identity evaluations
if the drawn pairs are the same. Runs that differ only in their seed are averaged and compared as
one. Every interval is a percentile bootstrap over clips (or pairs). It is seeded, so the same files
give the same numbers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskanim_jax.metrics.bootstrap import DRAWS, SHARE
from maskanim_jax.reports.differences import (
    Clips,
    Compared,
    difference,
    figures,
    figures_over_seeds,
    metric_names,
)
from maskanim_jax.reports.page_parts import at
from maskanim_jax.reports.runs import Run, describe, group_by
from maskanim_jax.reports.seeds import Seeds, by_seed

REPEAT = "copying the source"
SAME_TO_MANY = 4
"""Up to this many runs of a set, every pair is compared; with more, every run is
compared with the first.
"""


class Entry(NamedTuple):
    """One row of a cross-identity evaluation."""

    compared: Compared
    variant: str
    start: str
    reference: bool

    def named(self) -> Compared:
        """With the variant in the label."""
        return dataclasses.replace(self.compared, label=f"{self.compared.label}: {self.variant}")


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


def _fingerprint(run: Run) -> str:
    return str(run.figures.get("data_fingerprint") or run.label)


def _cross_identity_key(run: Run) -> str:
    return json.dumps([run.truth.get(name) for name in ("data", "seed", "frame_size")], sort_keys=True)


def _compared_as_one(groups: Sequence[Seeds]) -> list[Seeds]:
    """The sides of the comparisons: with a single group, its runs."""
    return list(groups) if len(groups) > 1 else [Seeds(run.label, [run]) for group in groups for run in group.runs]


def _set(members: Sequence[Run]) -> dict[str, Any]:
    """The reconstruction results of runs with the same test data."""
    clips = {run.label: _members(run.figures.get("clips"), ("name",)) for run in members}
    metrics = metric_names(row for rows in clips.values() for row in rows.values())
    own = [metric for metric in metrics if not metric.endswith("_copy_source")]
    rows = [{"run": run.label, "figures": figures(clips[run.label], own)} for run in members]
    repeated = {m.removesuffix("_copy_source"): m for m in metrics if m.endswith("_copy_source")}
    first = clips[members[0].label]
    rows.append(
        {"run": REPEAT, "figures": {m: e for m, key in repeated.items() for e in figures(first, [key]).values()}}
    )
    groups = by_seed(members)
    sides = [Compared(each.label, [clips[run.label] for run in each.runs]) for each in _compared_as_one(groups)]
    differences = [
        *(difference(one, other, m) for one, other in _run_pairs(sides) for m in own),
        *(
            difference(one, dataclasses.replace(one, label=REPEAT), m, key)
            for one in sides
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
        "differences": [each for each in differences if each],
        "seeds": [
            _described(each) | {"figures": figures_over_seeds(Compared(each.label, given), own)}
            for each in groups
            if len(given := [clips[run.label] for run in each.runs]) > 1
        ],
    }


def _cross_identity(members: Sequence[Run]) -> dict[str, Any]:
    """The cross-identity results of runs that were measured on the same pairs."""
    single = _entries([Seeds(run.label, [run]) for run in members])
    groups = by_seed(members)
    compared = _entries(_compared_as_one(groups))
    starts = list(dict.fromkeys(entry.start for entry in single))
    there = metric_names(pair for entry in single for pair in entry.compared.clips.values())
    defined = members[0].truth.get("definitions") or {}
    metrics = sorted(there, key=lambda metric: [*defined, *there].index(metric))
    rows = [
        {
            "run": entry.compared.label,
            "variant": entry.variant,
            "start": entry.start,
            "reference": entry.reference,
            "figures": figures(entry.compared.clips, metrics),
        }
        for entry in single
    ]
    differences = _from_repeating(compared, metrics)
    for start in starts:
        ranked = [entry.named() for entry in compared if entry.start == start and not entry.reference]
        found = [(start, difference(ranked[0], one, metric)) for one in ranked[1:] for metric in metrics]
        differences += [{"start": start, **each} for start, each in found if each]
    averaged = {group.label: _described(group) for group in groups if len(group.runs) > 1}
    return {
        "name": str(members[0].config.get("name")),
        "pairs": len(single[0].compared.clips) if single else 0,
        "definitions": members[0].truth.get("definitions", {}),
        "metrics": metrics,
        "rows": rows,
        "differences": differences,
        "seeds": [
            averaged[entry.compared.label]
            | {"start": entry.start, "variant": entry.variant}
            | {"figures": figures_over_seeds(entry.compared, metrics)}
            for entry in _entries(groups)
            if entry.compared.label in averaged
        ],
    }


def _described(group: Seeds) -> dict[str, Any]:
    return {
        "run": group.label,
        "runs": [run.label for run in group.runs],
        "seeds": [run.config.get("seed") for run in group.runs],
    }


def _entries(groups: Sequence[Seeds]) -> list[Entry]:
    """The rows of all truth.json, those of one group together, ordered by the source's start."""
    found: list[Entry] = []
    for number, group in enumerate(groups):
        measured: dict[tuple[str, str, bool], list[Clips]] = {}
        for run in group.runs:
            for row in run.truth.get("rows", []):
                key = (row["variant"], row["start"], row["reference"])
                measured.setdefault(key, []).append(_members(row["pairs"], ("source", "driving")))
        for (variant, start, reference), pairs in measured.items():
            if not reference:
                found.append(Entry(Compared(group.label, pairs), variant, start, False))
            elif not number:  # references are the same for all
                found.append(Entry(Compared(variant, pairs[:1]), variant, start, True))
    starts = list(dict.fromkeys(entry.start for entry in found))
    return sorted(found, key=lambda entry: starts.index(entry.start))


def _from_repeating(entries: Sequence[Entry], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The first variant of each run, compared with copying the source from the same start."""
    found = []
    repeated = {entry.start: entry.compared for entry in entries if entry.compared.label == REPEAT}
    first: dict[str, str] = {}
    for entry in entries:
        label = entry.compared.label
        if not entry.reference and first.setdefault(label, entry.variant) == entry.variant and entry.start in repeated:
            for metric in metrics:
                if one := difference(entry.named(), repeated[entry.start], metric):
                    found.append({"start": entry.start, **one})
    return found


def _members(rows: Any, key: tuple[str, ...]) -> Clips:
    """The rows of a file by name; invalid entries are skipped."""
    found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return {tuple(row.get(name) for name in key): row for row in found if row.get("frames")}


def _run_pairs(sides: Sequence[Compared]) -> list[tuple[Compared, Compared]]:
    many = len(sides) > SAME_TO_MANY
    return [(a, b) for i, a in enumerate(sides) for b in sides[i + 1 :] if not many or i == 0]
