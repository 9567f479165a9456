"""How is a run kept, found again and continued?

A workdir holds `config.json`, `run.json` (see provenance.py) and `checkpoints/STEP/`, written by Orbax. One item, `state`, has
parameters, batch statistics, optimiser and the step, which is also the data position; beside it `info` has what the state means (data
fingerprint, steps of an epoch, seed).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers as policies

from configs import common
from maskanim_jax.errors import UserError
from maskanim_jax.files import replacing
from maskanim_jax.mesh import replicated
from maskanim_jax.state import TrainState, init_state
from maskanim_jax.systems import build
from maskanim_jax.systems.interface import System, Variables

CONFIG = "config.json"
FOLDER = "checkpoints"
MAY_CHANGE = (
    "train.",
    "optim.max_steps",
    "optim.max_minutes",
    "data.threads",
    "data.prefetch",
    "cpu_devices",
    "data.shards",
    "reconstruct.",
    "animate.",
    "name",
)
"""Fields that a resumed run may have otherwise: they do not change what a step computes."""
SHOWN_CHANGES = 8
"""Changed fields named in a refusal."""


def flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as {"a.b": value}, with lists for tuples as JSON has them."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flat_config(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def changes(workdir: Path, config: ConfigDict) -> tuple[list[str], list[str]]:
    """Fields that are otherwise than in the workdir's config, a clause each: those that change what a step computes, and the others."""
    if not (workdir / CONFIG).exists():
        return [], []
    before, now = flat_config(read_config(workdir).to_dict()), flat_config(config.to_dict())
    found: tuple[list[str], list[str]] = [], []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            found[key.startswith(MAY_CHANGE)].append(f"{key} was {before.get(key)} and is {now.get(key)}")
    return found


def claim_workdir(workdir: Path, config: ConfigDict, accept_changes: bool = False) -> None:
    """Makes the workdir this config's own; raises UserError when it belongs to another config, unless changes are accepted."""
    refuse_changes(workdir, [] if accept_changes else changes(workdir, config)[0])
    path = workdir / CONFIG
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(config.to_dict(), indent=2))
    except OSError as error:
        raise UserError(f"{workdir} can't be written ({error.strerror}): give another --workdir or free it") from error


def refuse_changes(workdir: Path, differ: list[str]) -> None:
    """Raises UserError with the first few of `differ`, if there are any."""
    if differ:
        more = f" and {len(differ) - SHOWN_CHANGES} more" if len(differ) > SHOWN_CHANGES else ""
        raise UserError(
            f"{workdir} belongs to a run with another config ({'; '.join(differ[:SHOWN_CHANGES])}{more}): give another --workdir, "
            "no --config to go on with that run's config, or --accept_changes to train on with this one"
        )


def read_config(workdir: Path) -> ConfigDict:
    """The config that a run was started with; raises UserError when the folder is no workdir.

    A field that is younger than the run has its default, which does what was done before there was the field.
    """
    path = workdir / CONFIG
    try:
        saved = json.loads(path.read_text())
        if not isinstance(saved, dict):
            raise ValueError("not a config")
        return ConfigDict(_completed(saved, common.get_config().to_dict()), convert_dict=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir} is not the folder of a run: it has no {CONFIG}; give the --workdir of a training"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be read as JSON ({error}): restore it or train into another folder") from error


def _completed(saved: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`saved` with what it lacks of the fields that all systems share; sections as a whole are left as they are."""
    complete = dict(saved)
    for key, default in defaults.items():
        if isinstance(default, Mapping):
            if isinstance(saved.get(key), Mapping):
                complete[key] = _completed(saved[key], default)
        else:
            complete.setdefault(key, default)
    return complete


class Checkpoints:
    """The checkpoints of one workdir: the last few and the best by held-out L1. Use it with `with`."""

    def __init__(self, workdir: Path, keep: int = 2, read_only: bool = False) -> None:
        self.folder = (workdir / FOLDER).absolute()
        keepers = [
            policies.LatestN(keep),
            policies.BestN(get_metric_fn=lambda metrics: metrics["l1"], reverse=True, n=1),
        ]
        options = ocp.CheckpointManagerOptions(
            preservation_policy=None if read_only else policies.AnyPreservationPolicy(keepers),
            best_fn=lambda metrics: metrics["l1"],
            best_mode="min",
            read_only=read_only,
            create=not read_only,
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps of all whole checkpoints, in order."""
        return sorted(self._manager.all_steps())

    def last(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the lowest held-out L1, the newest when none was measured."""
        best = self._manager.best_step()
        return self.last() if best is None else best

    def save(self, state: TrainState, info: Mapping[str, Any], l1: float) -> None:
        """Writes in the background; a checkpoint becomes visible only when it is whole."""
        step = int(state.step)
        if step in self.steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(state._asdict()), info=ocp.args.JsonSave(dict(info)))
        try:
            self._manager.save(step, args=args, metrics={"l1": l1}, force=True)
        except OSError as error:
            raise UserError(
                f"{self.folder} can't be written ({error}): free space or give another --workdir"
            ) from error

    def wait(self) -> None:
        """Until everything is on the disk."""
        self._manager.wait_until_finished()

    def info(self, step: int) -> dict[str, Any]:
        """What was saved beside the state."""
        with _readable(self.folder, step):
            return self._manager.restore(step, args=ocp.args.Composite(info=ocp.args.JsonRestore()))["info"]

    def restore(self, step: int, like: TrainState, mesh: Mesh) -> TrainState:
        """The state of a step, on every device; `like` gives names and shapes."""
        wanted = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)), like._asdict()
        )
        with _readable(self.folder, step):
            args = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
            return TrainState(**self._manager.restore(step, args=args)["state"])

    def restore_variables(self, step: int, like: Variables) -> Variables:
        """Parameters and statistics alone, on one device: what animation needs."""
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), like._asdict())
        restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
        with _readable(self.folder, step):
            args = ocp.args.PyTreeRestore(item=wanted, restore_args=restore_args, partial_restore=True)
            return Variables(**self._manager.restore(step, args=ocp.args.Composite(state=args))["state"])


class _readable:
    """Turns what Orbax raises for a damaged or foreign checkpoint into a sentence."""

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / str(step)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, UserError):
            reason = str(error).split("\n")[0][:200]
            raise UserError(
                f"{self.path} can't be restored ({reason}): it is damaged or of another config; move it away to use the one before"
            ) from error


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A trained system, ready to use."""

    config: ConfigDict
    system: System
    variables: Variables
    step: int


def saved_config(path: Path) -> ConfigDict:
    """The config of the run that `load_run` would load; JAX is not used yet. Raises UserError when there is none."""
    return read_config(_find(Path(path))[0])


def _find(path: Path) -> tuple[Path, int | None]:
    """(workdir, step) of a workdir or of a checkpoint's folder in it."""
    if not path.is_dir():
        raise UserError(
            f"{path} is not there or no folder: give the --workdir of a training, or one of its checkpoints/STEP"
        )
    if path.parent.name == FOLDER and path.name.isdigit():
        return path.parent.parent, int(path.name)
    return path.parent if path.name == FOLDER else path, None


def load_run(path: Path, which: str = "best") -> LoadedRun:
    """A workdir's "best" or "last" checkpoint, or that of a folder `WORKDIR/checkpoints/STEP`; UserError when there is none."""
    workdir, wanted = _find(Path(path))
    config = read_config(workdir)
    if not (workdir / FOLDER).is_dir():
        raise UserError(f"{workdir} has no checkpoint yet: train it first with --mode=train")
    try:
        system = build(config)
    except UserError as error:
        raise UserError(f"{workdir / CONFIG}: {error}") from error
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = wanted if wanted is not None else checkpoints.best() if which == "best" else checkpoints.last()
        if step is None or step not in checkpoints.steps():
            raise UserError(
                f"{workdir / FOLDER} has no whole checkpoint{'' if step is None else f' of step {step}'}: train first, or give another folder"
            )
        variables = checkpoints.restore_variables(step, jax.eval_shape(system.init, jax.random.key(0)))
    return LoadedRun(config, system, variables, step)


def abstract_state(system: System, seed: int, steps_per_epoch: int) -> TrainState:
    """Names and shapes of a state, nothing computed."""
    return jax.eval_shape(lambda: init_state(system, seed, steps_per_epoch))
