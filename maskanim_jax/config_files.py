"""Which config does `FILE.py[:ARGUMENT]` name? For commands beside `main`, which has a flag of ml_collections for it."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from maskanim_jax.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def load_config(text: str) -> ConfigDict:
    """`FILE.py[:ARGUMENT]` as --config of `main` takes it; raises UserError. The package's own configs are found from everywhere."""
    name, _, argument = text.partition(":")
    path = Path(name)
    try:
        if path.is_file():
            spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(f"configs.{path.stem}")
        return module.get_config(argument) if argument else module.get_config()
    except (ImportError, AssertionError, AttributeError, TypeError) as error:
        raise UserError(
            f"--config={text} is no config ({error}): give a file such as configs/taichi.py:released"
        ) from error
