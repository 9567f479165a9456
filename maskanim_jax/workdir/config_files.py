"""How is a config loaded from `FILE.py[:ARGUMENT]`, and from a workdir's config.json?

For all commands except `main`, which uses a flag of ml_collections for config files.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import configs
from maskanim_jax.errors import UserError, check_size
from maskanim_jax.systems import SYSTEMS
from maskanim_jax.utils import json_files
from maskanim_jax.utils.paths import user_path
from maskanim_jax.workdir.renamed_fields import upgrade_config

if TYPE_CHECKING:
    from ml_collections import ConfigDict

MAX_BYTES = 1 << 20
_LIMITS = (
    ("(.*[._])?blocks", 64),
    ("frame_size", 8192),
    ("num_cpu_devices|data[.](num_threads|prefetch)|perturb[.]strips", 1024),
)
_MOST = 1 << 40
"""The largest number in a config; larger ones could only make a loop or an array endless."""


def find_config(text: str) -> str:
    """`FILE.py[:ARGUMENT]` with the file's path: the user's file, or the package's
    config `[configs/]NAME[.py]`.

    Raises UserError if neither exists, so that all commands have the same message.
    """
    path, argument = _located(text)
    return f"{path}:{argument}" if argument else str(path)


def find_config_flag(argv: list[str]) -> None:
    """Applies `find_config` to the value of --config in `argv`, in place."""
    for at, argument in enumerate(argv):
        name, given, value = argument.partition("=")
        if argument.startswith("-") and name.lstrip("-") == "config":
            if given:
                argv[at] = f"{name}={find_config(value)}"
            elif at + 1 < len(argv):
                argv[at + 1] = find_config(argv[at + 1])


def _located(text: str) -> tuple[Path, str]:
    name, _, argument = text.partition(":")
    path = user_path(name)
    if not path.is_file():
        own = Path(str(configs.__file__)).parent / f"{path.stem}.py"
        if path.parent not in (Path("."), Path("configs")) or not own.is_file() or path.stem in ("__init__", ""):
            raise UserError(
                f"--config={text} is not a config: there is no file {path}, and the package has {', '.join(package_configs())}"
            )
        path = own
    return path, argument


def package_configs() -> list[str]:
    """The names of the package's configs that can be run."""
    bases = ("__init__", "common", "small", "perturbed_masks", "fomm_base")
    folder = Path(str(configs.__file__)).parent
    return [f"configs/{path.name}" for path in sorted(folder.glob("*.py")) if path.stem not in bases]


def load_config(text: str) -> ConfigDict:
    """Loads the config of `FILE.py[:ARGUMENT]`, like --config of `main`; raises UserError.

    The package's configs are found from any working directory.
    """
    path, argument = _located(text)
    try:
        spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config(argument) if argument else module.get_config()
        if not hasattr(config, "to_dict"):
            raise TypeError(f"its get_config returns a {type(config).__name__}")
        return config
    except UserError:
        raise
    except Exception as error:  # a config is a program, which may raise anything
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        raise UserError(
            f"--config={text} is not a config ({reason}): give a file such as configs/taichi.py:released"
        ) from error


def read_config_json(path: Path) -> dict[str, Any]:
    """The contents of a run's config.json.

    Raises FileNotFoundError or OSError, and ValueError with a reason if it is not a valid config.
    """
    check_size(path, MAX_BYTES)
    saved = json_files.loads(path.read_text(encoding="utf-8"), json_files.refuse_constant)
    if not isinstance(saved, dict):
        raise ValueError(f"it holds a {type(saved).__name__}, not a config")
    saved = upgrade_config(saved)
    base = SYSTEMS.get(str(saved.get("system")), "configs.common")
    for reason in _objections(saved, importlib.import_module(base).get_config().to_dict(), "", 0):
        raise ValueError(reason)
    return saved


def _objections(saved: Mapping[str, Any], like: Mapping[str, Any], prefix: str, depth: int) -> Iterator[str]:
    """Yields the reasons why `saved` is not a valid config: values of another type than in `like`,
    and absurdly large ones.
    """
    if depth > 8:
        yield f"{prefix[:200]} is nested too deeply"
        return
    for key, value in saved.items():
        name, default = prefix + key, like.get(key)
        if not isinstance(value, dict):
            yield from _bad_value(name, value)
        if key in like and not _same_kind(value, default):
            yield f"{name} is {_kind(value)} instead of {_kind(default)}"
        elif isinstance(value, dict):
            yield from _objections(value, default if isinstance(default, Mapping) else {}, f"{name}.", depth + 1)


def _bad_value(name: str, value: object) -> Iterator[str]:
    values = value if isinstance(value, list) else [value]
    limit = next((limit for pattern, limit in _LIMITS if re.fullmatch(pattern, name)), _MOST)
    if len(values) > 1000:
        yield f"{name} has {len(values):,} entries"
    for each in values:
        if isinstance(each, list | dict):
            yield f"{name} is a list of lists or sections"
        elif isinstance(each, int | float) and not (math.isfinite(each) and abs(each) <= limit):
            yield f"{name} is {each:.6g}, more than {limit:,}" if math.isfinite(each) else f"{name} is not finite"


def _same_kind(value: object, default: object) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, tuple | list):
        return isinstance(value, list)
    return default is None or isinstance(value, type(default))


def _kind(value: object) -> str:
    words = {dict: "a section", bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return words.get(type(value), "null" if value is None else "a list")
