"""Which config does a run go on with when none is given? The one in its workdir, as a config file whose argument is the workdir."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def get_config(workdir: str) -> ConfigDict:
    """The run's own config; fields may be set on the command line as with any config file. Raises UserError when there is no run."""
    from maskanim_jax.checkpoints import read_config

    config = read_config(Path(workdir))
    _with_tuples(config)
    return config


def _with_tuples(section: Any) -> None:
    """JSON knows no tuples, which is what the config files have."""
    for key, value in section.items():
        if hasattr(value, "items"):
            _with_tuples(value)
        elif isinstance(value, list):
            with section.ignore_type():
                section[key] = tuple(value)
