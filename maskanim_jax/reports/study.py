"""How do I reproduce the study? Each run is trained, reconstructed and
measured, then all are compared.

A set is a data set with one config per system: the same pairs, steps and batch size. Runs are in
FOLDER/SET-SYSTEM; finished runs are reused, interrupted ones resume.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from maskanim_jax.buckets.address import address_of, shown
from maskanim_jax.buckets.local_paths import fetched
from maskanim_jax.errors import UserError
from maskanim_jax.utils import json_files
from maskanim_jax.workdir import config_files
from maskanim_jax.workdir.logs import read_log

SETS: dict[str, tuple[str, ...]] = {
    "puppets": ("configs/puppets.py", "configs/fomm_puppets.py"),
    "mgif": ("configs/mgif.py:small", "configs/fomm_mgif.py:small"),
    "faces": ("configs/voxceleb.py:small", "configs/fomm_voxceleb.py:small"),
}
"""Drawn figures, real moving GIFs, real faces; all at 64 x 64."""

REPORT = "report"


class Planned(NamedTuple):
    """One run of the study."""

    name: str
    config: str  # FILE.py or FILE.py:ARGUMENT
    workdir: Path
    shards: Path
    drawn: bool  # puppets: missing shards are drawn, and the ground truth is known
    steps: int
    overrides: tuple[str, ...]  # --config.* flags of main


def plan(
    workdir: Path,
    sets: dict[str, Sequence[str]],
    *,
    data: Path | None = None,
    steps: int | None = None,
    seeds: Sequence[int] = (0,),
    overrides: Sequence[str] = (),
) -> list[Planned]:
    """All runs, set by set.

    Raises UserError for an invalid config, and if the shards of real clips are missing.
    """
    planned = []
    for name, configs in sets.items():
        for config_name in configs:
            config = config_files.load_config(config_name)
            shards = Path(config.data.shards) if data is None else data / Path(config.data.shards).name
            drawn = bool(config.data.puppets.test_identities)
            if not drawn and address_of(shards) is None and not shards.exists():
                raise UserError(
                    f"{shards}, the shards of the set '{name}', does not exist: prepare it with `python -m input_pipeline.prepare "
                    f"--input=ROOT --output={shards} --size={config.frame_size}`, give --data=FOLDER, or omit the set with --sets"
                )
            for seed in seeds:
                label = f"{name}-{config.system}" + (f"-seed{seed}" if len(seeds) > 1 else "")
                flags = [
                    f"--config.data.shards={shards}",
                    f"--config.seed={seed}",
                    *_shorter(steps, config),
                    *overrides,
                ]
                planned.append(
                    Planned(
                        label,
                        config_name,
                        workdir / label,
                        shards,
                        drawn,
                        steps or config.optim.max_steps,
                        tuple(flags),
                    )
                )
    labels = [run.name for run in planned]
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise UserError(
            f"two configs of one set have the same system, so both would be the run {min(twice)}: give one config per system"
        )
    return planned


def _shorter(steps: int | None, config: ConfigDict) -> list[str]:
    """Flags for a run of `steps` steps; a short one logs and saves at intervals that fit."""
    if steps is None:
        return []
    names = {"optim.max_steps": steps, "optim.cosine_steps": steps}
    if steps < 5 * config.train.checkpoint_every:
        every = max(1, steps // 5)
        names |= {"train.log_every": every, "train.checkpoint_every": 5 * every, "train.image_every": 5 * every}
    return [f"--config.{name}={value}" for name, value in names.items()]


def run_study(runs: Sequence[Planned], *, pairs: int = 20, frames: int = 8) -> list[Path]:
    """Completes each run in order: trains, reconstructs, measures.

    Returns their folders. Raises UserError when a command fails.
    """
    for number, run in enumerate(runs, 1):
        print(f"[{number}/{len(runs)}] {run.name}: {shown(run.workdir)}", flush=True)
        moved = f"--config.data.shards={run.shards}"
        if not is_finished(run):
            config = f"--config={config_files.find_config(run.config)}"
            call(run, "training", "maskanim_jax.main", config, "--mode=all", *run.overrides)
        elif not is_up_to_date(run.workdir, "reconstruction.json"):
            call(run, "reconstruction", "maskanim_jax.main", "--mode=reconstruct", moved)
            call(run, "animation", "maskanim_jax.main", "--mode=animate", moved)
        else:
            print("  trained and reconstructed already", flush=True)
        if run.drawn and not is_up_to_date(run.workdir, "truth.json"):
            call(run, "the cross-identity evaluation", "maskanim_jax.truth", f"--pairs={pairs}", f"--frames={frames}")
    return [run.workdir for run in runs]


def measured_runs(workdir: Path, planned: Sequence[Path]) -> list[Path]:
    """The folders that the report shows: `planned`, and the runs in `workdir` that earlier calls
    measured, with other sets or seeds. Known sets come first.
    """
    there = sorted(path.parent for path in workdir.glob("*/reconstruction.json"))
    earlier = [path for path in there if path not in planned and is_up_to_date(path, "reconstruction.json")]

    def place(folder: Path) -> int:
        of_set = folder.name.partition("-")[0]
        return [*SETS].index(of_set) if of_set in SETS else len(SETS)

    return sorted([*planned, *earlier], key=place)


def call(run: Planned, what: str, module: str, *arguments: str) -> None:
    """Runs a command of the package on a run's workdir and shows its output;
    raises UserError if it fails.
    """
    command = [sys.executable, "-m", module, f"--workdir={run.workdir}", *arguments]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise UserError(
            f"{what} of {run.name} ended with status {status}; its own message is printed above: fix the problem and run the "
            "same command again, which resumes from there"
        )


def is_finished(run: Planned) -> bool:
    """Whether the run reached its number of steps, its time limit or the end of its patience,
    and has a checkpoint.
    """
    workdir = fetched(run.workdir, may_lack=True)
    try:
        saved = json_files.read(workdir / "config.json")["optim"]["max_steps"]
        texts = [str(record["text"]) for record in read_log(workdir) if "text" in record]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    ended = bool(texts) and texts[-1].startswith("finished at step ")
    return ended and saved == run.steps and any((workdir / "checkpoints").glob("[0-9]*"))


def is_up_to_date(workdir: Path, file: str) -> bool:
    """Whether the metrics in `file` are complete, newer than every checkpoint, and of a
    checkpoint that still exists.
    """
    workdir = fetched(workdir, may_lack=True)
    try:
        figures = json_files.read(workdir / file)
        step, restricted = figures["checkpoint_step"], "restricted" in figures
        written = (workdir / file).stat().st_mtime
    except (OSError, ValueError, KeyError, TypeError):
        return False
    kept = [path for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdigit()]
    return (
        not restricted
        and str(step) in {path.name for path in kept}
        and all(path.stat().st_mtime <= written for path in kept)
    )


def chosen_sets(args: argparse.Namespace) -> dict[str, Sequence[str]]:
    """The sets that the flags name; raises UserError for an unknown one."""
    if args.config:
        if not args.name.replace("-", "_").isidentifier():
            raise UserError(f"--name={args.name} must be letters, digits, - and _")
        return {args.name: args.config}
    names = [name for name in args.sets.split(",") if name]
    for name in names:
        if name not in SETS:
            raise UserError(f"--sets={args.sets}: '{name}' is not a set; give some of {', '.join(SETS)}")
    if not names:
        raise UserError(f"--sets is empty: give some of {','.join(SETS)}")
    return {name: SETS[name] for name in names}
