"""Which config is used if none is given?

The one in the workdir, loaded as a config file with an argument.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskanim_jax.buckets.local_paths import fetched_file

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def get_config(workdir: str) -> ConfigDict:
    """The run's own config; the command line may set fields, as with any config file.

    Raises UserError if there is no run.
    """
    from ml_collections import ConfigDict

    from maskanim_jax.workdir.config import read_config

    return ConfigDict(_with_tuples(read_config(Path(workdir)).to_dict()))


def _with_tuples(value: Any) -> Any:
    """Converts lists to tuples, which config files use and JSON lacks."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def take_saved_config(argv: list[str]) -> None:
    """Adds --config with the workdir's config if none is given. ml_collections reads sys.argv
    itself, so `argv` must be that list.
    """
    names = [argument.lstrip("-").partition("=")[0] for argument in argv]
    if "config" in names or "workdir" not in names:
        return
    at = names.index("workdir")
    _, given, value = argv[at].partition("=")
    workdir = fetched_file(value if given else argv[at + 1] if at + 1 < len(argv) else "", "config.json")
    if (workdir / "config.json").exists():
        get_config(str(workdir))  # raised here, since ml_collections would hide the message
        argv.insert(1, f"--config={__file__}:{workdir}")
