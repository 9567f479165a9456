"""To which config does a workdir belong, and what may a run that goes on have otherwise?"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import common
from maskanim_jax.errors import UserError
from maskanim_jax.systems import SYSTEMS
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.workdir.config_files import read_config_json

CONFIG = "config.json"

MUTABLE_FIELDS = (
    "train.",
    "optim.epochs",
    "optim.max_steps",
    "optim.max_minutes",
    "data.num_threads",
    "data.prefetch",
    "num_cpu_devices",
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


def diff_config(workdir: Path, config: ConfigDict) -> tuple[list[str], list[str]]:
    """Fields that are otherwise than in the workdir's config, a clause each: those that change what a step computes, and the others."""
    if not (workdir / CONFIG).exists():
        return [], []
    before, now = flat_config(read_config(workdir).to_dict()), flat_config(config.to_dict())
    found: tuple[list[str], list[str]] = [], []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            found[key.startswith(MUTABLE_FIELDS)].append(f"{key} was {before.get(key)} and is {now.get(key)}")
    return found


def write_config(workdir: Path, config: ConfigDict, allow_config_change: bool = False) -> None:
    """Makes the workdir this config's own; raises UserError when it belongs to another config, unless changes are accepted."""
    check_config_unchanged(workdir, [] if allow_config_change else diff_config(workdir, config)[0])
    path = workdir / CONFIG
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(config.to_dict(), indent=2))
    except OSError as error:
        raise UserError(f"{workdir} can't be written ({error.strerror}): give another --workdir or free it") from error


def check_config_unchanged(workdir: Path, differ: list[str]) -> None:
    """Raises UserError with the first few of `differ`, if there are any."""
    if differ:
        more = f" and {len(differ) - SHOWN_CHANGES} more" if len(differ) > SHOWN_CHANGES else ""
        raise UserError(
            f"{workdir} belongs to a run with another config ({'; '.join(differ[:SHOWN_CHANGES])}{more}): give another --workdir, "
            "no --config to go on with that run's config, or --allow_config_change to train on with this one"
        )


def read_config(workdir: Path) -> ConfigDict:
    """The config that a run was started with; raises UserError when the folder is no workdir.

    A field that is younger than the run has its default, which does what was done before there was the field.
    """
    path = workdir / CONFIG
    try:
        saved = read_config_json(path)
        return ConfigDict(_with_added(_completed(saved, common.get_config().to_dict())), convert_dict=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir} is not the folder of a run: it has no {CONFIG}; give the --workdir of a training"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as a config ({error}): restore it or train into another folder"
        ) from error


def _with_added(saved: dict[str, Any]) -> dict[str, Any]:
    """`saved` with the fields of its system that older versions did not have (ADDED of its base config)."""
    base = importlib.import_module(SYSTEMS.get(str(saved.get("system")), "configs.common"))
    for field in getattr(base, "ADDED", ()):
        section, name = field.split(".")
        if isinstance(saved.get(section), dict):
            saved[section] = {name: base.get_config()[section][name], **saved[section]}
    return saved


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
