"""What happens when a loss or gradient is not finite?

The last good checkpoint is kept and the step is described.
"""

from __future__ import annotations

import contextlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from input_pipeline.pairs import PairStream
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.errors import UserError
from maskanim_jax.training.metric_window import NonFiniteStep
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.workdir.logs import MetricWriter

SHOWN = 4
"""The most clips that the error names; the file lists all."""
PREFIX = "gradient_norm_"


def record_path(workdir: Path, step: int) -> Path:
    """The file that describes the bad step."""
    return workdir / f"not_finite_{step}.json"


def pairs_of_step(stream: PairStream, clips: Sequence[str], step: int) -> list[dict[str, Any]]:
    """Clip name and both frame numbers of each pair in this process's part of a step's batch;
    the batch is read again.
    """
    with contextlib.closing(stream.batches(step - 1)) as batches:
        batch = next(batches)
    return [
        {"clip": clips[int(clip)], "frames": [int(frame) for frame in frames]}
        for clip, frames in zip(batch["clip"], batch["frames"], strict=True)
    ]


def words(figures: Mapping[str, float]) -> str:
    """The non-finite metrics of a step, in words: losses by name, gradients by network."""
    bad = [name for name, value in figures.items() if not math.isfinite(value)]
    parts = [name for name in bad if not name.startswith(PREFIX)]
    networks = [name.removeprefix(PREFIX) for name in bad if name.startswith(PREFIX)]
    if networks:
        parts.append(f"the gradient of {', '.join(networks)}")
    return "; ".join(parts) or "the batch statistics"


def finite_or_word(value: float) -> float | str:
    """Converts infinity and NaN, which JSON lacks, to "inf", "-inf" and "nan"."""
    return value if math.isfinite(value) else str(value)


@contextlib.contextmanager
def report_nonfinite(
    workdir: Path,
    seed: int,
    stream: PairStream,
    clips: Sequence[str],
    checkpoints: CheckpointManager,
    log: MetricWriter | None,
) -> Iterator[None]:
    """Turns NonFiniteStep into a UserError with the step, losses, networks,
    clips and the replay command.

    The process with the log also writes `not_finite_STEP.json`, with all clips
    of its part of the batch.
    """
    try:
        yield
    except NonFiniteStep as error:
        checkpoints.wait_until_finished()
        good = [step for step in checkpoints.all_steps() if step < error.step]
        pairs = pairs_of_step(stream, clips, error.step)
        command = f"python -m maskanim_jax.main --workdir={shlex.quote(str(workdir))} --mode=replay --step={error.step}"
        if log is not None:
            record = {
                "step": error.step,
                "not_finite": error.names,
                "figures": {name: finite_or_word(value) for name, value in error.figures.items()},
                "seed": seed,
                "pairs": pairs,
                "last_good_checkpoint": good[-1] if good else None,
                "replay": command,
            }
            with atomic_write(record_path(workdir, error.step)) as temporary:
                temporary.write_text(json.dumps(record, indent=2))
        names = list(dict.fromkeys(pair["clip"] for pair in pairs))
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        left = f"the checkpoint of step {good[-1]} is unchanged" if good else "there is no checkpoint yet"
        message = (
            f"{workdir}: step {error.step} is not finite ({words(error.figures)}), so it was not saved, and {left}; "
            f"seed {seed}, clips {', '.join(names[:SHOWN])}{more}; inspect that step with `{command}`"
        )
        if log is not None:
            log.text(error.step, message)
        raise UserError(message) from error
