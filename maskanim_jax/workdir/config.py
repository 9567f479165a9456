"""Which config does a workdir belong to, and what may change when its run resumes?"""

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
    "optim.patience",
    "data.num_threads",
    "data.prefetch",
    "num_cpu_devices",
    "data.shards",
    "reconstruct.",
    "animate.",
    "name",
)
"""Fields that may change when a run resumes: they do not affect what a step computes."""

SHOWN_CHANGES = 8
"""How many changed fields an error names."""


def flat_config(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a nested config to {"a.b": value}; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat.update(flat_config(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def diff_config(workdir: Path, config: ConfigDict) -> tuple[list[str], list[str]]:
    """Clauses on fields that differ from the workdir's config: those that
    affect a step, and the others.
    """
    if not (workdir / CONFIG).exists():
        return [], []
    before, now = flat_config(read_config(workdir).to_dict()), flat_config(config.to_dict())
    found: tuple[list[str], list[str]] = [], []
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            found[key.startswith(MUTABLE_FIELDS)].append(f"{key} was {before.get(key)} and is {now.get(key)}")
    return found


def write_config(workdir: Path, config: ConfigDict, allow_config_change: bool = False) -> None:
    """Writes the config to the workdir; raises UserError if it belongs to another,
    unless changes are allowed.
    """
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
            "omit --config to resume with that run's config, or add --allow_config_change to resume with this one"
        )


def read_config(workdir: Path) -> ConfigDict:
    """The config that a run was started with; raises UserError when the folder is not a workdir.

    Fields that are newer than the run get their defaults, which keep the old behaviour.
    """
    path = workdir / CONFIG
    try:
        saved = read_config_json(path)
        return ConfigDict(_with_added(_completed(saved, common.get_config().to_dict())), convert_dict=True)
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir} is not the folder of a run: it has no {CONFIG}; give the --workdir of a run"
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} can't be read as a config ({error}): restore it or train into another folder"
        ) from error


def _with_added(saved: dict[str, Any]) -> dict[str, Any]:
    """`saved` with the fields of its system that older versions did not have
    (ADDED of its base config), with the default or the value of the field that they were split from
    (SPLIT).
    """
    base = importlib.import_module(SYSTEMS.get(str(saved.get("system")), "configs.common"))
    split = getattr(base, "SPLIT", {})
    for field in getattr(base, "ADDED", ()):
        section, name = field.split(".")
        if isinstance(saved.get(section), dict):
            older = split.get(field, field).split(".")[1]
            value = saved[section].get(older, base.get_config()[section][name])
            saved[section] = {name: value, **saved[section]}
    return saved


def _completed(saved: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`saved` completed with shared fields that it lacks; missing sections stay missing."""
    complete = dict(saved)
    for key, default in defaults.items():
        if isinstance(default, Mapping):
            if isinstance(saved.get(key), Mapping):
                complete[key] = _completed(saved[key], default)
        else:
            complete.setdefault(key, default)
    return complete
