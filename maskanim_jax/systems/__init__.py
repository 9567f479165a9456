"""Which systems are there? `build` creates the one that `config.system` names."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError

if TYPE_CHECKING:  # so that a command's --help does not import jax
    from maskanim_jax.systems.interface import System

SYSTEMS = {"perturbed_masks": "configs.perturbed_masks", "fomm": "configs.fomm_base"}
"""Folder of each system (its `system.py` defines `build(config) -> System`) and its default config
module.
"""


def build(config: ConfigDict) -> System:
    """The system that `config.system` names, with the config's sizes. Raises UserError for invalid
    settings.
    """
    if config.system not in SYSTEMS:
        raise UserError(f"config.system is '{config.system}', but the systems are {', '.join(SYSTEMS)}")
    module = importlib.import_module(f"maskanim_jax.systems.{config.system}.system")
    try:
        return module.build(config)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"the config '{config.get('name', config.system)}' lacks a setting or has a wrong one ({error}): it was written by another version or "
            "changed by hand"
        ) from error
