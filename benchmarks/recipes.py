"""Which recipe is best on validation identities? Each system is trained with one setting changed.

`python -m benchmarks.recipes --workdir=FOLDER` trains on puppets at 64 x 64 with a constant
learning rate and averaged weights, and prints the held-out L1 as a ratio to copying the source.
Finished runs are kept, interrupted ones resume.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from maskanim_jax.errors import UserError, run_main
from maskanim_jax.workdir.logs import read_log

CONFIGS = {"perturbed_masks": "configs/puppets.py:long", "fomm": "configs/fomm_puppets.py:long"}


class Recipe(NamedTuple):
    """Changes to the config; a step counts as `batches` of the usual ones."""

    changes: Mapping[str, float]
    batches: int = 1


_LARGE_BATCH = Recipe({"batch_size": 16}, batches=4)

RECIPES: dict[str, dict[str, Recipe]] = {
    "perturbed_masks": {
        "as it is": Recipe({}),
        "half the rate": Recipe({"optim.learning_rate": 5e-4}),
        "twice the rate": Recipe({"optim.learning_rate": 2e-3}),
        "batch 16": _LARGE_BATCH,
        "temperatures falling to 0.1": Recipe({"mask.temperature_steps": 4000, "refine.temperature_steps": 4000}),
        "m at 0.03 of the rate": Recipe({"optim.mask_lr_multiplier": 0.03}),
        "m at 0.1 of the rate": Recipe({"optim.mask_lr_multiplier": 0.1}),
        "m at the full rate": Recipe({"optim.mask_lr_multiplier": 1.0}),
    },
    "fomm": {
        "as it is": Recipe({}),
        "half the rate": Recipe({"optim.learning_rate": 2.5e-4}),
        "twice the rate": Recipe({"optim.learning_rate": 1e-3}),
        "batch 16": _LARGE_BATCH,
        "5 keypoints": Recipe({"keypoints.num_keypoints": 5}),
        "15 keypoints": Recipe({"keypoints.num_keypoints": 15}),
        "half the equivariance": Recipe({"loss.equivariance_value": 5.0, "loss.equivariance_jacobian": 5.0}),
        "twice the equivariance": Recipe({"loss.equivariance_value": 20.0, "loss.equivariance_jacobian": 20.0}),
    },
}
"""Each system's recipes: as many learning rates for both, and what only one of them has."""


def folder_name(system: str, recipe: str) -> str:
    """The run's folder."""
    return f"{system}-{recipe.replace(' ', '-')}"


def command(system: str, name: str, workdir: Path, steps: int, data: str) -> list[str]:
    """The training of one recipe."""
    recipe = RECIPES[system][name]
    every = max(1, steps // 5 // recipe.batches)
    settings: dict[str, float | str] = {
        "optim.max_steps": steps // recipe.batches,
        "train.log_every": every,
        "train.checkpoint_every": every,
        "train.image_every": every,
        "train.max_to_keep": 1,
        **recipe.changes,
    }
    if data:
        settings["data.shards"] = data
    flags = [f"--config.{field}={value}" for field, value in settings.items()]
    run = ["-m", "maskanim_jax.main", f"--config={CONFIGS[system]}", f"--workdir={workdir}", "--mode=train"]
    return [sys.executable, *run, *flags]


def ratios(workdir: Path, batches: int = 1) -> dict[int, float]:
    """Held-out L1 as a ratio to copying the source, by the number of usual batches seen."""
    if not (workdir / "log.jsonl").exists():
        return {}
    return {each["step"] * batches: each["test_ratio"] for each in read_log(workdir) if "test_ratio" in each}


def table(folder: Path, systems: Sequence[str]) -> str:
    """A Markdown table of all recipes that were trained."""
    lines = []
    for system in systems:
        found = {
            name: ratios(folder / folder_name(system, name), each.batches) for name, each in RECIPES[system].items()
        }
        steps = sorted({step for each in found.values() for step in each})
        if not steps:
            continue
        lines += [f"| {system} | " + " | ".join(map(str, steps)) + " |", "| --- " * (len(steps) + 1) + "|"]
        for name, each in found.items():
            if each:
                lines.append(f"| {name} | " + " | ".join(f"{each[s]:.3f}" if s in each else "" for s in steps) + " |")
        lines.append("")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--workdir", type=Path, required=True, help="folder of the runs")
    flags.add_argument("--systems", default=",".join(RECIPES), help="comma separated")
    flags.add_argument("--only", default="", help="comma separated names of recipes (default: all)")
    flags.add_argument("--steps", type=int, default=5000, help="batches of the usual size")
    flags.add_argument("--data", default="", help="shards (default: the config's, drawn if missing)")
    args = flags.parse_args(argv)
    systems = args.systems.split(",")
    if unknown := [each for each in systems if each not in RECIPES]:
        raise UserError(f"--systems={unknown[0]} must be {' or '.join(RECIPES)}")
    only = [each for each in args.only.split(",") if each]
    known = {name for system in systems for name in RECIPES[system]}
    if wrong := [each for each in only if each not in known]:
        raise UserError(f"--only={wrong[0]} is no recipe: the recipes are {', '.join(sorted(known))}")
    for system in systems:
        for name in RECIPES[system]:
            if only and name not in only:
                continue
            workdir = args.workdir / folder_name(system, name)
            print(f"{system}, {name}: {workdir}", flush=True)
            if subprocess.run(command(system, name, workdir, args.steps, args.data), check=False).returncode:
                raise UserError(f"the training of {workdir} failed, see above; repeat the command to resume")
    print(table(args.workdir, systems))


if __name__ == "__main__":
    run_main(main)
