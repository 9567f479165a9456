"""Which config is used when none is given? The one in the workdir, loaded as a config file with an argument."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskanim_jax.buckets.local_paths import fetched_file

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def get_config(workdir: str) -> ConfigDict:
    """The run's own config; fields may be set on the command line as with any config file. Raises UserError when there is no run."""
    from ml_collections import ConfigDict

    from maskanim_jax.workdir.config import read_config

    return ConfigDict(_with_tuples(read_config(Path(workdir)).to_dict()))


def _with_tuples(value: Any) -> Any:
    """JSON has no tuples, which config files use."""
    if isinstance(value, dict):
        return {key: _with_tuples(each) for key, each in value.items()}
    return tuple(value) if isinstance(value, list) else value


def take_saved_config(argv: list[str]) -> None:
    """Adds the --config that a workdir holds where none is given. ml_collections reads sys.argv itself, so `argv` must be that list."""
    names = [argument.lstrip("-").partition("=")[0] for argument in argv]
    if "config" in names or "workdir" not in names:
        return
    at = names.index("workdir")
    _, given, value = argv[at].partition("=")
    workdir = fetched_file(value if given else argv[at + 1] if at + 1 < len(argv) else "", "config.json")
    if (workdir / "config.json").exists():
        get_config(str(workdir))  # in ml_collections' hands an error would lose its sentence
        argv.insert(1, f"--config={__file__}:{workdir}")
