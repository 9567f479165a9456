"""How is a run exported as a checkpoint of the released PyTorch code?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskanim_jax.buckets.address import shown
from maskanim_jax.buckets.local_paths import fetched
from maskanim_jax.conversion.importing import UNUSED, _check_absent, _layout
from maskanim_jax.errors import UserError
from maskanim_jax.serialization.npz import read_npz
from maskanim_jax.serialization.torch_writer import write_tensors

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from maskanim_jax.conversion.layout import Layout


def export_checkpoint(path: Path, output: Path) -> list[str]:
    """Writes a run's newest checkpoint (or `WORKDIR/checkpoints/STEP`) as a file of the released
    code, with the optimiser state.

    The run may be in a bucket. Returns messages for the user. Raises UserError if the run has
    features that the released code lacks, or if the output exists.
    """
    import jax

    from maskanim_jax.checkpoints.loading import FOLDER, load_run
    from maskanim_jax.checkpoints.manager import CheckpointManager
    from maskanim_jax.conversion.adam_state import read_moments as moments_of
    from maskanim_jax.conversion.layout import UnmappedTensor, file_tree
    from maskanim_jax.distributed.sharding import make_mesh
    from maskanim_jax.systems.train_state import abstract_state

    _check_absent(output, "file")
    given, path = path, fetched(path)
    run = load_run(path, "last")
    workdir = path.parent.parent if path.parent.name == FOLDER else path.parent if path.name == FOLDER else path
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        info = checkpoints.info(run.step)
        steps_per_epoch = info.get("steps_per_epoch")
        like = abstract_state(run.system, run.config.seed, steps_per_epoch or 1, info.get("ema", 0.0))
        state = jax.device_get(checkpoints.restore(run.step, like, make_mesh(jax.device_count())))
    moments = {name: found for name, found in moments_of(state.opt_state).items() if found.updates}
    unused = _read_unused(workdir / UNUSED)
    layout = _layout(run.config, {name: value.shape for name, value in unused.items()})
    _check_unused(workdir / UNUSED, unused, layout)
    epoch = max(0, run.step // steps_per_epoch - 1) if steps_per_epoch else 0
    rates = run.system.learning_rates(run.step, steps_per_epoch or 1)
    tree = file_tree(state.averaged, moments, unused, layout, epoch, _groups(run.config, layout, rates))
    write_tensors(output, tree)
    said = [f"{output}: step {run.step} of {shown(given)} as epoch {epoch}"]
    if state.ema is not None:
        said.append("the file has the run's averaged weights (optim.ema), but the optimiser state of the last weights")
    if made := [
        name for name, at in layout.items() if isinstance(at, UnmappedTensor) and name not in unused and not at.fixed
    ]:
        said.append(f"{len(made)} tensors that the released code stores but never uses are zeros, such as {made[0]}")
    return said


def _groups(config: ConfigDict, layout: Layout, rates: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """Adam's settings of each module, as PyTorch writes them; its schedules start from
    `initial_lr`.
    """
    from maskanim_jax.conversion.layout import ParamMapping

    optim, highest = config.optim, max(rates.values())
    groups: dict[str, dict[str, Any]] = {}
    # A module that is only stored has no network here; its optimiser made no updates.
    networks = dict.fromkeys((name.split(".", 1)[0] for name in layout), "")
    for name, at in layout.items():
        module = name.split(".", 1)[0]
        if isinstance(at, ParamMapping) and not networks[module]:
            networks[module] = at.path[0]
    for module, network in networks.items():
        rate = rates.get(network, highest)
        groups[module] = {
            "lr": float(rate),
            "betas": (float(optim.beta1), float(optim.beta2)),
            "eps": 1e-8,
            "weight_decay": 0.0,
            "amsgrad": False,
            "initial_lr": float(optim.learning_rate) * (rate / highest if highest else 1.0),
        }
    return groups


def _read_unused(path: Path) -> dict[str, np.ndarray]:
    """The tensors that an import kept; empty for a run that was trained here."""
    if not path.exists():
        return {}
    return read_npz(path, "move it away to have zeros in its place, or import again")


def _check_unused(path: Path, unused: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Raises UserError when the kept tensors are not those of this config's files."""
    from maskanim_jax.conversion.layout import ParamMapping

    for name, value in unused.items():
        at = layout.get(name)
        if at is None or isinstance(at, ParamMapping) or value.shape != at.default.shape:
            raise UserError(
                f"{path} does not belong to this run ({name}): move it away to export zeros instead, or import again"
            )
