"""How is a run or a bundled checkpoint loaded?

A workdir holds `config.json`, `run.json` (see provenance.py) and `checkpoints/STEP/`
(see manager.py). The item `state` has parameters, batch statistics, optimiser state and
the step, which is also the data position. The item `info` has its metadata (data
fingerprint, steps per epoch, seed).
"""

from __future__ import annotations

from pathlib import Path

import jax
from ml_collections import ConfigDict

from maskanim_jax.buckets.local_paths import fetched, naming_addresses
from maskanim_jax.checkpoints import bundled
from maskanim_jax.checkpoints.items import check_params_finite
from maskanim_jax.checkpoints.manager import FOLDER, CheckpointManager
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.errors import UserError
from maskanim_jax.systems import build
from maskanim_jax.workdir.config import CONFIG, read_config


@naming_addresses()
def saved_config(path: Path) -> ConfigDict:
    """The config of the run that `load_run` would load, without importing JAX.

    Raises UserError if there is none.
    """
    path = fetched(path)
    if bundled.is_bundled(path):
        return bundled.config_of(str(path))
    return read_config(_find(path)[0])


def _find(path: Path) -> tuple[Path, int | None]:
    """(workdir, step) for the path of a workdir or of one of its checkpoints."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: give the --workdir of a run, or one of its checkpoints/STEP")
    if path.parent.name == FOLDER and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path.parent if path.name == FOLDER else path, None


@naming_addresses()
def load_run(path: Path, which: str = "best") -> LoadedRun:
    """Loads the "best" or "last" checkpoint of a workdir, or the checkpoint
    `WORKDIR/checkpoints/STEP`. Raises UserError if there is none.

    Either may be in a bucket. A path that does not exist may be the name of a bundled checkpoint.
    """
    path = fetched(path)
    if bundled.is_bundled(path):
        return bundled.load(str(path))
    workdir, wanted = _find(path)
    config = read_config(workdir)
    if not (workdir / FOLDER).is_dir():
        raise UserError(f"{workdir} has no checkpoint yet: train it first with --mode=train")
    try:
        system = build(config)
    except UserError as error:
        raise UserError(f"{workdir / CONFIG}: {error}") from error
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        step = (
            wanted if wanted is not None else checkpoints.best_step() if which == "best" else checkpoints.latest_step()
        )
        if step is None or step not in checkpoints.all_steps():
            raise UserError(
                f"{workdir / FOLDER} has no complete checkpoint{'' if step is None else f' of step {step}'}: train first, or give another folder"
            )
        variables = checkpoints.restore_variables(step, jax.eval_shape(system.init, jax.random.key(0)))
    check_params_finite(variables, workdir / FOLDER / str(step))
    return LoadedRun(config, system, variables, step)
