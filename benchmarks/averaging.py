"""Are averaged weights better, and which batch statistics should they use?

`python -m benchmarks.averaging --workdir=RUN` measures a run that was trained with `optim.ema`. One
checkpoint reconstructs the held-out clips three times: with the last weights, with averaged weights
and statistics (as in evaluation and animation), and with averaged weights and the last statistics.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax

from input_pipeline.from_config import held_out_split, open_data
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.manager import EMA, FOLDER, CheckpointManager
from maskanim_jax.distributed.sharding import make_mesh
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.evaluation.reconstruction import reconstruct
from maskanim_jax.systems.interface import Variables
from maskanim_jax.systems.train_state import abstract_state


def measure(workdir: Path, clips: int, frames: int) -> dict[str, float]:
    """L1 of each choice and of copying the source; raises UserError for a run without averages."""
    run = load_run(workdir, "last")
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        info = checkpoints.info(run.step)
        if not info.get(EMA):
            raise UserError(
                f"{workdir / FOLDER / str(run.step)} has no averaged weights: train with --config.optim.ema=0.999"
            )
        like = abstract_state(run.system, run.config.seed, info["steps_per_epoch"], info[EMA])
        state = jax.device_get(checkpoints.restore(run.step, like, make_mesh(jax.device_count())))
    choices = {
        "last weights, last statistics": state.variables,
        "averaged weights, averaged statistics": state.averaged,
        "averaged weights, last statistics": Variables(state.averaged.params, state.stats),
    }
    split, found = open_data(run.config, held_out_split(run.config)), {}
    for name, variables in choices.items():
        figures = reconstruct(run.system, variables, split, clips=clips, frames=frames)
        found[name] = figures["l1"]
        found["copying the source"] = figures["l1_copy_source"]
    print(
        f"{workdir}, step {run.step}, decay {info[EMA]:g}, {split.name} split, {clips} clips, {frames} frames of each"
    )
    return found


def main() -> None:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--workdir", type=Path, required=True, help="a run with optim.ema")
    flags.add_argument("--clips", type=int, default=16)
    flags.add_argument("--frames", type=int, default=8)
    args = flags.parse_args()
    for name, l1 in measure(args.workdir, args.clips, args.frames).items():
        print(f"{name:<40} L1 {l1:.4f}")


if __name__ == "__main__":
    run_main(main)
