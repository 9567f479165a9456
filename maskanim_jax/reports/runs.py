"""What does a comparison read from each run? Settings, metrics, log and cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskanim_jax.buckets.local_paths import fetched, naming_addresses
from maskanim_jax.errors import UserError
from maskanim_jax.reports.page_parts import at, read_json
from maskanim_jax.workdir.logs import read_log
from maskanim_jax.workdir.renamed_fields import upgrade_config, upgrade_figures


class Run(NamedTuple):
    """The contents of a workdir."""

    folder: Path
    label: str
    config: dict[str, Any]
    figures: dict[str, Any]  # reconstruction.json
    truth: dict[str, Any]  # truth.json
    records: list[dict[str, Any]]  # log.jsonl
    notes: list[str]

    @property
    def system(self) -> str:
        return str(self.config.get("system", "unknown"))


@naming_addresses()
def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Reads workdirs; raises UserError for a folder that is not a workdir or
    was not reconstructed yet.
    """
    labels = _labels(folders)  # of the paths as given: a bucket's run is read from a cache folder
    folders = [fetched(folder) for folder in folders]
    runs = []
    for folder, label in zip(folders, labels, strict=True):
        if not folder.is_dir():
            raise UserError(f"{folder} isn't a folder: give the workdirs of runs")
        if len({f.resolve() for f in folders}) < len(folders):
            raise UserError(f"{folder} is given twice: give each run once")
        notes: list[str] = []
        kinds = {"config": dict, "reconstruction": dict, "truth": dict}
        config, figures, truth = (read_json(folder / f"{file}.json", kind, notes) for file, kind in kinds.items())
        if not figures:
            raise UserError(
                f"{folder} has no metrics: run `python -m maskanim_jax.main --workdir={folder} --mode=reconstruct` first"
            )
        runs.append(
            Run(folder, label, upgrade_config(config), upgrade_figures(figures), truth, read_log(folder), notes)
        )
    return runs


def group_by(runs: Sequence[Run], key: Callable[[Run], str]) -> list[list[Run]]:
    """Runs grouped by key, in order of first appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return list(groups.values())


def _labels(folders: Sequence[Path]) -> list[str]:
    """Each folder's own name (a link's, not its target's), with its parent's where two
    are alike.
    """
    paths = [folder.absolute() for folder in folders]
    names = [path.name or str(folder) for path, folder in zip(paths, folders, strict=True)]
    return [
        name if names.count(name) == 1 else f"{path.parent.name}/{name}"
        for path, name in zip(paths, names, strict=True)
    ]


def describe(run: Run) -> dict[str, Any]:
    """A run's description and cost: steps, hours of training, parameters."""
    texts = [str(record["text"]) for record in run.records if "text" in record]
    parameters = next((m[1] for text in texts if (m := re.search(r"together ([\d,]+)$", text))), None)
    return {
        "run": run.label,
        "config": run.config.get("name"),
        "system": run.system,
        "seed": run.config.get("seed"),
        "steps": max((record["step"] for record in run.records), default=0),
        "batch": run.config.get("batch_size"),
        "checkpoint_step": run.figures.get("checkpoint_step"),
        "hours": training_hours(run.records),
        "parameters": int(parameters.replace(",", "")) if parameters else None,
        "untrained_vgg": at(run.config, "loss.vgg") == "untrained",
        "notes": run.notes,
    }


def training_hours(records: Iterable[Mapping[str, Any]]) -> float | None:
    """Hours spent in training steps, from the logged speed: start-up, evaluations
    and pauses are excluded.
    """
    seconds, before = 0.0, 0
    for record in records:
        speed = record.get("steps_per_second")
        if isinstance(speed, int | float) and speed > 0 and record["step"] > before:
            seconds += (record["step"] - before) / speed
            before = record["step"]
    return seconds / 3600 if before else None
