"""What happened in one step of a run? The step is repeated from the checkpoint
before it and inspected.

Data order, noise and arithmetic are functions of seed and step: on the same devices the metrics
equal those of the run bit-for-bit.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from maskanim_jax.buckets.local_paths import in_working_copy
from maskanim_jax.checkpoints.loading import FOLDER
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import PyTree
from maskanim_jax.systems.train_state import TrainState
from maskanim_jax.training.experiment import Experiment, batches, build_experiment, init_state, restore_or_init
from maskanim_jax.training.nonfinite import finite_or_word, pairs_of_step, record_path, words
from maskanim_jax.training.step import FINITE, make_train_step
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.video.strips import grid, strip
from maskanim_jax.workdir.config import check_config_unchanged, diff_config
from maskanim_jax.workdir.provenance import read_starts

REPLAY = "replay"
"""Folder in the workdir: `replay/STEP/` has `figures.json`, `batch.png` and `pictures.png`."""
SHOWN_PAIRS = 16


@in_working_copy()
def replay(config: ConfigDict, workdir: Path, step: int) -> str:
    """Repeats the steps from the checkpoint before `step` to `step`; writes only `replay/STEP/`.

    Returns a table of metrics by network. Stops early at a step that is not finite. Raises
    UserError when the workdir holds no run or no checkpoint to start from.
    """
    if jax.process_count() > 1:
        raise UserError(f"--mode=replay of {workdir} needs the whole batch: start it in one process")
    if not (workdir / FOLDER).is_dir():
        raise UserError(f"{workdir} has no {FOLDER} to replay from: give the --workdir of a training")
    check_config_unchanged(workdir, diff_config(workdir, config)[0])
    experiment = build_experiment(config)
    if step > experiment.num_steps:
        raise UserError(
            f"--step={step} is not a step of {workdir}, whose config ends at step {experiment.num_steps}: give an earlier one"
        )
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        starts = read_starts(workdir)
        checkpoint = max((saved for saved in checkpoints.all_steps() if saved < step), default=None)
        if checkpoint is None and starts and starts[0].get("from_checkpoint"):
            raise UserError(f"{workdir} has no checkpoint before step {step}: restore one to replay from")
        state = init_state(experiment) if checkpoint is None else restore_or_init(experiment, checkpoints, checkpoint)
    start_step = int(state.step)
    run = make_train_step(
        experiment.system,
        config.seed,
        experiment.stream.steps_per_epoch,
        experiment.mesh,
        config.optim.grad_accum_steps,
        config.optim.ema,
    )
    with contextlib.closing(batches(experiment, start_step)) as pairs:
        for _ in ProgressBar(range(start_step + 1, step + 1), desc="replay", unit="step"):
            source, driving = next(pairs)
            before = jax.tree.map(np.array, state)  # copied, since the step donates the state's memory
            state, metrics = run(state, experiment.frozen, source, driving)
            figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
            if not figures[FINITE]:
                break
    finite, now = bool(figures.pop(FINITE)), int(state.step)
    report = {
        "step": now,
        "finite": finite,
        "replayed_from": start_step,
        "seed": config.seed,
        "figures": {name: finite_or_word(value) for name, value in figures.items()},
        "networks": networks(before, jax.device_get(state), figures),
        "pairs": pairs_of_step(experiment.stream, experiment.clips, now),
    }
    folder = workdir / REPLAY / str(now)
    _write(folder, report, experiment, before, jax.device_get((source, driving)))
    return _table(report, figures, _recorded(workdir, now), folder)


def networks(before: TrainState, after: TrainState, figures: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """For each network: norms of gradient, parameters and update, and the number of
    non-finite values after the step.
    """
    found = {}
    for name, params in before.params.items():
        moved = jax.tree.map(lambda new, old: np.asarray(new, np.float64) - old, after.params[name], params)
        found[name] = {
            "gradient_norm": finite_or_word(figures.get(f"gradient_norm_{name}", math.nan)),
            "parameter_norm": finite_or_word(_norm(params)),
            "update_norm": finite_or_word(_norm(moved)),
            "bad_parameters": _bad(after.params[name]),
            "bad_statistics": _bad(after.stats.get(name, {})),
        }
    return found


def _norm(tree: PyTree) -> float:
    return math.sqrt(sum(float(np.square(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(tree)))


def _bad(tree: PyTree) -> int:
    return sum(int((~np.isfinite(np.asarray(leaf))).sum()) for leaf in jax.tree.leaves(tree))


def _write(
    folder: Path, report: Mapping[str, Any], experiment: Experiment, before: TrainState, pairs: tuple[Any, Any]
) -> None:
    """Writes the metrics, the batch's original frames, and the networks' outputs
    for them before the step.
    """
    source, driving = (np.asarray(frames)[:SHOWN_PAIRS] for frames in pairs)
    frames = (jnp.asarray(raw, jnp.float32) / 255.0 for raw in (source, driving))
    order = experiment.system.output_names
    made = jax.device_get(
        jax.jit(experiment.system.outputs)(before.variables, *frames, jax.random.key(experiment.config.seed))
    )
    shown = {name: np.nan_to_num(np.asarray(made[name], np.float32), posinf=1.0, neginf=0.0) for name in order}
    size = max(96, experiment.system.frame_size)
    rows = [strip({name: shown[name][i] for name in order}, order, size, captions=i == 0) for i in range(len(source))]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "figures.json") as temporary:
            temporary.write_text(json.dumps(report, indent=2))
        for name, picture in (
            ("batch", grid([np.concatenate(pair, axis=1) for pair in zip(source, driving, strict=True)])),
            ("pictures", grid(rows)),
        ):
            with atomic_write(folder / f"{name}.png") as temporary:
                Image.fromarray(picture).save(temporary, format="PNG")
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): free it") from error


def _recorded(workdir: Path, step: int) -> dict[str, Any] | None:
    """The metrics that the run recorded for a bad step, if any."""
    try:
        figures = json.loads(record_path(workdir, step).read_text())["figures"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return figures if isinstance(figures, dict) else None


def _table(
    report: Mapping[str, Any], figures: Mapping[str, float], recorded: dict[str, Any] | None, folder: Path
) -> str:
    said = "is finite" if report["finite"] else f"is not finite: {words(figures)}"
    lines = [f"step {report['step']}, replayed from step {report['replayed_from']}, {said}"]
    if recorded is not None:
        equal = recorded == report["figures"]
        lines.append(
            "its metrics equal the run's bit for bit"
            if equal
            else "its metrics DIFFER from the run's: devices, versions or data have changed"
        )
    lines += [f"  {name:<24} {value:.6g}" for name, value in figures.items()]
    columns = list(next(iter(report["networks"].values())))
    lines.append("  ".join([f"{'network':<12}", *(f"{column:>16}" for column in columns)]))
    for name, row in report["networks"].items():
        cells = (f"{value:>16.6g}" if isinstance(value, float) else f"{value!s:>16}" for value in row.values())
        lines.append("  ".join([f"{name:<12}", *cells]))
    lines.append("clips: " + ", ".join(dict.fromkeys(pair["clip"] for pair in report["pairs"])))
    lines.append(f"see {folder}: batch.png, pictures.png, figures.json")
    return "\n".join(lines)
