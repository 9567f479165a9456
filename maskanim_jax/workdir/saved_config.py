"""Which config does a run go on with when none is given? The one in its workdir, as a config file whose argument is the workdir."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def get_config(workdir: str) -> ConfigDict:
    """The run's own config; fields may be set on the command line as with any config file. Raises UserError when there is no run."""
    from ml_collections import ConfigDict

    from maskanim_jax.checkpoints.loading import read_config

    return ConfigDict(_with_tuples(read_config(Path(workdir)).to_dict()))


def _with_tuples(value: Any) -> Any:
    """JSON knows no tuples, which is what the config files have."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value
