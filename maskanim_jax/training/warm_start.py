"""How do I fine-tune? `config.init_from` initialises a new run from another run's networks.

Parameters and batch statistics are copied, averaged ones if the other run has them. The optimiser,
the step and the data order start from zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.distributed.sharding import replicate, replicated_sharding
from maskanim_jax.errors import UserError
from maskanim_jax.nn.widening import Shape, input_positions, is_wider, widened
from maskanim_jax.systems.interface import SCHEDULED, System, Variables
from maskanim_jax.systems.train_state import TrainState, with_averages
from maskanim_jax.utils.paths import path_or_bucket
from maskanim_jax.workdir.config import flat_config

INITIAL = "initial_networks"
"""Key in run.json and in a checkpoint's `info`: what the run was initialised from."""
_SHOWN = 4
"""How many tensors of each kind an error names."""
_OF_TRAINING = ("data.", "loss.", "optim.", "train.", "reconstruct.", "animate.", "init_", "name", "reference", "seed")
_OF_DEVICES = ("batch_size", "num_cpu_devices", "precision", "remat")
"""Prefixes of config fields that do not affect what the networks compute."""


class Initial(NamedTuple):
    """The networks to start from."""

    tensors: dict[str, np.ndarray]
    """The tensors to copy, by name (see `_names`); all others are initialised."""
    grown: dict[str, np.ndarray | None]
    """Those of `tensors` that have fewer channels than the new run's, with the positions of their
    inputs (`widening.input_positions`).
    """
    record: dict[str, Any]
    """For run.json: path, step, SHA-256 of everything read, initialised, unused and widened
    tensors, differing settings.
    """


def read_initial(config: ConfigDict, system: System) -> Initial | None:
    """Reads `config.init_from`; None if it is empty. `system` is the one to train.

    Raises UserError if it can't be read, or if tensors do not fit and
    `config.init_skip` does not list them.
    """
    if not config.init_from:
        for field in ("init_skip", "init_grow"):
            if config[field]:
                raise UserError(f"config.{field}={tuple(config[field])} has no effect without config.init_from")
        return None
    path = path_or_bucket(config.init_from)
    if path.is_file():
        raise UserError(
            f"config.init_from={path} is a file: convert a checkpoint of the released code with `python -m maskanim_jax.convert "
            f"--input={path} --output=DIR` and give that folder"
        )
    run = load_run(path)
    found, like = _names(run.variables), _names(jax.eval_shape(system.init, jax.random.key(0)))
    skipped, may_grow = (_named(config, field, (*found, *like)) for field in ("init_skip", "init_grow"))
    narrow, wide = ({name: tuple(array.shape) for name, array in each.items()} for each in (found, like))
    grown = {
        name: input_positions(name, narrow, wide) if name.endswith("/kernel") else None
        for name in (may_grow - skipped) & narrow.keys() & wide.keys()
        if narrow[name] != wide[name] and is_wider(narrow[name], wide[name])
    }
    left = skipped | grown.keys()
    wrong = _wrong(*({name: shape for name, shape in each.items() if name not in left} for each in (narrow, wide)))
    if any(wrong.values()):
        raise UserError(_refusal(config, system, run, wrong) + _hint_to_grow(narrow, wide, left))
    tensors = {name: np.asarray(found[name], like[name].dtype) for name in like if name not in skipped}
    record = {
        "path": str(config.init_from),
        "step": run.step,
        "sha256": _digest(found),
        "taken": len(tensors),
        "fresh": sorted(_short(name) for name in like if name in skipped),
        "left": sorted(_short(name) for name in found if name not in like),
        "grown": sorted(map(_short, grown)),
        "other_settings": _other_settings(run.config, config),
    }
    return Initial(tensors, grown, record)


def started_from(initial: Initial, state: TrainState, system: System, steps_per_epoch: int, mesh: Mesh) -> TrainState:
    """`state` with the tensors of `initial`, a new optimiser state, and averages that
    start from these tensors.
    """
    fresh = _names(state.variables)
    tensors = initial.tensors | {
        name: widened(initial.tensors[name], jax.device_get(fresh[name]), positions)
        for name, positions in initial.grown.items()
    }
    taken = replicate(mesh, tensors)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state.variables)
    variables: Variables = jax.tree_util.tree_unflatten(
        structure, [taken.get(_name(where), leaf) for where, leaf in leaves]
    )
    optimizer = jax.jit(system.optimizer(steps_per_epoch).init, out_shardings=replicated_sharding(mesh))(
        variables.params
    )
    averaged = state.ema is not None
    state = state._replace(params=variables.params, stats=variables.stats, opt_state=optimizer, ema=None)
    return with_averages(state, float(averaged), mesh)


def messages(record: Mapping[str, Any]) -> list[str]:
    """Log messages for a record."""
    lines = [
        f"starts from {record['path']}, step {record['step']}: {record['taken']} tensors copied, {len(record['fresh'])} initialised, "
        f"{len(record.get('grown', ()))} of them widened, {len(record['left'])} unused (SHA-256 of the files: {record['sha256'][:16]}...)"
    ]
    if record["other_settings"]:
        lines.append(f"settings differ from the source run: {'; '.join(record['other_settings'])}")
    return lines


def _name(where: Sequence[Any]) -> str:
    return "/".join(str(getattr(part, "key", getattr(part, "name", getattr(part, "idx", part)))) for part in where)


def _names(variables: Variables) -> dict[str, Any]:
    """Tensors by name, `params/NETWORK/...` and `stats/NETWORK/...`, without
    values that a schedule sets.
    """
    named = {_name(where): leaf for where, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    return {name: leaf for name, leaf in named.items() if name.rpartition("/")[2] not in SCHEDULED}


def _short(name: str) -> str:
    """The name without params/ or stats/, as users write it."""
    return name.partition("/")[2]


def _named(config: ConfigDict, field: str, tensors: Collection[str]) -> set[str]:
    """The tensors that `config.init_skip` or `config.init_grow` names; raises UserError for a name
    without a tensor.
    """
    prefixes = tuple(config[field])
    for prefix in prefixes:
        if not any(_begins(each, prefix) for each in tensors):
            networks = ", ".join(dict.fromkeys(_short(each).split("/")[0] for each in tensors))
            raise UserError(
                f"config.{field} names '{prefix}', but no tensor has that name or prefix: the networks are {networks}"
            )
    return {each for each in tensors if any(_begins(each, prefix) for prefix in prefixes)}


def _begins(name: str, prefix: str) -> bool:
    prefix = prefix.strip("/")
    return _short(name) == prefix or _short(name).startswith(f"{prefix}/")


def _wrong(found: Mapping[str, tuple[int, ...]], like: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Mismatches by kind."""
    return {
        "missing": [_short(name) for name in like if name not in found],
        "misshapen": [
            f"{_short(name)} {found[name]} instead of {shape}"
            for name, shape in like.items()
            if name in found and found[name] != shape
        ],
        "extra": [_short(name) for name in found if name not in like],
    }


def _refusal(config: ConfigDict, system: System, run: LoadedRun, wrong: Mapping[str, list[str]]) -> str:
    """The error message: the tensors, the settings that cause it, and what to do."""
    kinds = [
        f"{len(names)} tensors are {kind} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for kind, names in wrong.items()
        if names
    ]
    if run.system.name != system.name:
        why = f"it is a run of {run.system.name}, not of {system.name}: give another run"
    else:
        before, now = run.system.shape_settings(), system.shape_settings()
        differ = [
            f"{key} is {before.get(key)} in that run and {now[key]} here" for key in now if before.get(key) != now[key]
        ]
        why = (
            f"{', '.join(differ)}: give the same settings"
            if differ
            else "its tensors have other names: give another run"
        )
    places = dict.fromkeys("/".join(name.split(" ")[0].split("/")[:2]) for names in wrong.values() for name in names)
    skip = ", ".join(f"'{place}'" for place in places)
    return (
        f"config.init_from={config.init_from} does not fit ({'; '.join(kinds)}), because {why}, or initialise "
        f'these tensors with "--config.init_skip=({skip},)"'
    )


def _hint_to_grow(narrow: Mapping[str, Shape], wide: Mapping[str, Shape], left: Collection[str]) -> str:
    """The end of the error message if new channels alone make the difference."""
    differ = [name for name in wide if name not in left and narrow.get(name) != wide[name]]
    if not all(name in narrow and is_wider(narrow[name], wide[name]) for name in differ):
        return ""
    networks = ", ".join(f"'{each}'" for each in dict.fromkeys(_short(name).split("/")[0] for name in differ))
    return f', or keep their channels and add new ones with "--config.init_grow=({networks},)"'


def _other_settings(before: ConfigDict, now: ConfigDict) -> list[str]:
    """Network settings that differ from the source run, so the same tensors
    may mean something else.
    """
    one, other = flat_config(before.to_dict()), flat_config(now.to_dict())
    return [
        f"{key} was {one[key]} and is {other[key]}"
        for key in sorted(one.keys() & other.keys())
        if one[key] != other[key] and not key.startswith(_OF_TRAINING + _OF_DEVICES)
    ]


def _digest(tensors: Mapping[str, Any]) -> str:
    """SHA-256 over names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = np.ascontiguousarray(jax.device_get(tensors[name]))
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
