"""How is a checkpoint of the released PyTorch code imported as a run?

Only tensors and plain values are read from the file; nothing in it is ever executed. See
docs/checkpoints.md.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskanim_jax.conversion.foreign import method_of, refuse_foreign
from maskanim_jax.errors import UserError
from maskanim_jax.serialization.torch_reader import MAX_BYTES, read_tensors, strings_in
from maskanim_jax.utils.paths import hidden_beside

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from maskanim_jax.conversion.contents import Contents
    from maskanim_jax.conversion.layout import Layout, Shapes
    from maskanim_jax.systems.interface import System, Variables
    from maskanim_jax.systems.train_state import TrainState


UNUSED = "unused_tensors.npz"
"""File in the workdir of an imported run: the tensors that only the released code has, for a later
export.
"""


def import_checkpoint(
    path: Path,
    workdir: Path,
    config: ConfigDict | None = None,
    steps_per_epoch: int | None = None,
    with_optimizer: bool = True,
    as_published: bool = True,
) -> list[str]:
    """Makes a workdir from a released checkpoint; returns messages for the user.

    Without `config`, system, sizes and settings are determined from the file's tensors. With
    `as_published`, the run gets the settings that the system's published files were trained with.
    Its step is the update count of the file's optimiser; `steps_per_epoch` is needed to resume
    training. Raises UserError when the file is not plain tensors, does not fit the config, or the
    workdir exists.
    """
    import jax
    import jax.numpy as jnp

    from maskanim_jax.conversion.adam_state import place_moments
    from maskanim_jax.conversion.contents import read_contents, read_moments
    from maskanim_jax.conversion.layout import UnmappedTensor, released, shapes, to_variables
    from maskanim_jax.conversion.recognition import recognize, refuse_other_methods
    from maskanim_jax.systems import build
    from maskanim_jax.systems.train_state import TrainState

    _check_absent(workdir, "folder")
    tree, recognized = _read(path), None
    if config is None:
        recognized = recognize(path, tree)
        config = recognized.config
    else:
        refuse_other_methods(path, tree)
        config = copy.deepcopy(config)
    settings = released(config).as_published(config) if as_published else []
    system = build(config)
    layout, missing = _without_lacking(released(config).OPTIONAL_MODULES, _layout(config, given := shapes(tree)), given)
    tree = {key: value for key, value in tree.items() if str(key).removeprefix("optimizer_") not in missing}
    like = jax.eval_shape(system.init, jax.random.key(0))
    contents = read_contents(path, tree, layout, like, with_optimizer)
    moments = read_moments(path, contents.adam, layout)
    updates = max((m.updates for m in moments.values()), default=0)
    step, steps_per_epoch = _position(contents, updates, steps_per_epoch)

    variables = jax.tree.map(jnp.asarray, to_variables(contents.tensors, layout))
    if missing:
        variables = _completed(variables, system, config.seed)
    opt_state = system.optimizer(steps_per_epoch or 1).init(variables.params)
    opt_state = place_moments(opt_state, moments, step)
    state = TrainState(jnp.asarray(step, jnp.int32), variables.params, variables.stats, opt_state)
    info = {"converted": True, "seed": config.seed, "minutes": 0.0}
    if steps_per_epoch:
        info["steps_per_epoch"] = steps_per_epoch

    unmapped = {
        name: contents.tensors[name].astype(at.default.dtype)
        for name, at in layout.items()
        if isinstance(at, UnmappedTensor) and name in contents.tensors
    }
    _write_run(workdir, config, system.paper_deviations(), state, info, unmapped)
    said = [f"{workdir}: {len(contents.tensors)} tensors of {path.name}, at step {step}"]
    if recognized is not None:
        said += [f"{path.name} is a checkpoint of {recognized.method}, config {config.name}", *recognized.assumed]
    said += [f"{message}; --as_config leaves the config as it is" for message in settings]
    said += [f"{path.name} has no {module}: it is newly initialised, which affects only training" for module in missing]
    if not moments:
        said.append("without optimiser state: training would start at step 0 with a fresh optimiser")
    elif not steps_per_epoch:
        said.append(
            "to resume training, convert again with --steps_per_epoch=N, the number of steps per epoch of your data"
        )
    return said


def _write_run(
    workdir: Path,
    config: ConfigDict,
    deviations: list[str],
    state: TrainState,
    info: dict[str, Any],
    unmapped: dict[str, np.ndarray],
) -> None:
    """Writes the workdir of an imported checkpoint, which appears only when complete. Raises
    UserError if it can't be written.

    `unmapped`: tensors of the file that no network here uses; an export writes them back.
    """
    from maskanim_jax.checkpoints.manager import CheckpointManager
    from maskanim_jax.workdir.config import write_config
    from maskanim_jax.workdir.provenance import write_paper_deviations

    temporary = hidden_beside(workdir, str(os.getpid()))
    try:
        write_config(temporary, config)
        write_paper_deviations(temporary, deviations)
        np.savez(temporary / UNUSED, **unmapped)  # type: ignore[arg-type]
        with CheckpointManager(temporary) as checkpoints:
            checkpoints.save(state, info, float("inf"))
            checkpoints.wait_until_finished()
        os.replace(temporary, workdir)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{workdir} can't be written ({why}): free space or give another --output") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(path: Path) -> dict[Any, Any]:
    """The file's dict; raises a UserError that says what the file is, if known."""
    refuse_foreign(path)
    try:
        return read_tensors(path, _most_bytes(path))
    except UserError as error:
        if what := method_of(strings_in(path)):
            raise UserError(f"{path} {what}") from error
        raise


def _without_lacking(may_lack: Sequence[str], layout: Layout, given: Shapes) -> tuple[Layout, list[str]]:
    """The layout without those modules of `may_lack` that the file lacks
    entirely, and their names.
    """
    there = {name.split(".", 1)[0] for name in given}
    missing = [module for module in may_lack if module not in there]
    kept = {name: at for name, at in layout.items() if name.split(".", 1)[0] not in missing}
    wanted = {name.split(".", 1)[0] for name in layout}
    return kept, [module for module in missing if module in wanted]


def _completed(variables: Variables, system: System, seed: int) -> Variables:
    """The variables, with newly initialised networks for those that the file lacks."""
    import jax

    def missing(key: jax.Array) -> list[dict[str, Any]]:
        # Only what is returned is compiled; the networks that the file has may be large.
        return [
            {name: tree for name, tree in fresh.items() if name not in there}
            for fresh, there in zip(system.init(key), variables, strict=True)
        ]

    params, stats = jax.jit(missing)(jax.random.key(seed))
    return type(variables)(params | variables.params, stats | variables.stats)


def _position(contents: Contents, updates: int, steps_per_epoch: int | None) -> tuple[int, int | None]:
    """(finished steps, steps per epoch): from Adam's update count, or from the file's epoch if the
    two disagree.

    The file's epoch, counted from 0, is the one that was running or had just finished when it was
    written.
    """
    if not updates or contents.epoch is None:
        return updates, steps_per_epoch
    finished = contents.epoch + 1
    if steps_per_epoch is None:
        return updates, None if updates % finished else updates // finished
    agree = updates // steps_per_epoch in (contents.epoch, finished)
    return updates if agree else finished * steps_per_epoch, steps_per_epoch


def _layout(config: ConfigDict, given: Shapes) -> Layout:
    """The tensors of a released file; raises UserError for a config that the released code does not
    support.
    """
    from maskanim_jax.conversion.layout import released

    system = released(config)
    if unsupported_settings := system.unsupported_settings(config):
        raise UserError(
            f"the released code does not support config {config.name}, which has {', '.join(unsupported_settings)}: give a config without them"
        )
    return system.layout(config, given)


def _most_bytes(path: Path) -> int:
    """The most bytes that a file's arrays may take together: a few times its size, since PyTorch
    does not compress.
    """
    try:
        return min(MAX_BYTES, 4 * path.stat().st_size + (1 << 20))
    except OSError:
        return MAX_BYTES  # reading the file gives the error


def _check_absent(path: Path, what: str) -> None:
    """Raises UserError if something exists at `path` that would be lost; an empty folder passes."""
    if path.exists() and not (what == "folder" and path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path} already exists: give a new {what} as --output, or move it away")
