"""How was a run made?

`run.json` records config, package versions, data and git revision of each start.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from maskanim_jax.errors import UserError
from maskanim_jax.utils import json_files
from maskanim_jax.utils.atomic_files import atomic_write

RUN, PAPER_DEVIATIONS, PARAMETERS = "run.json", "departures.json", "parameters.txt"
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "array_record",
    "ml_collections",
    "numpy",
    "maskanim_jax",
)
_PATIENCE = 10.0  # time limit of git in seconds


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that results may depend on; None for one that is
    not installed as a package.
    """
    from platform import python_version

    found: dict[str, str | None] = {"python": python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_revision(folder: Path | None = None) -> str | None:
    """The commit of the checkout `folder` (default: this package), "+" if modified; None
    if it is not a checkout.
    """
    root = Path(__file__).parents[2] if folder is None else folder
    if not (root / ".git").exists():  # otherwise git would use an enclosing checkout
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=_PATIENCE, check=True
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changes else "")


def read_starts(workdir: Path) -> list[dict[str, Any]]:
    """All starts recorded in `run.json`, oldest first; empty without the file.

    Raises UserError if unreadable.
    """
    path = Path(workdir) / RUN
    try:
        starts = json_files.read(path)["starts"]
        if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
            raise ValueError("no list of starts")
        return starts
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} can't be read as the list of a run's starts ({error}): move it away") from error


def make_run_record(config: Mapping[str, Any], data: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The record of the current start: config, data fingerprint, versions,
    git revision, and `more`.
    """
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        "time": when,
        **more,
        "data": dict(data),
        "versions": versions(),
        "git": git_revision(),
        "config": dict(config),
    }


def append_run_record(workdir: Path, start: Mapping[str, Any]) -> list[str]:
    """Appends to `run.json`; returns clauses on versions and git revision that
    changed since the last start.

    Raises UserError when the file can't be read or written.
    """
    starts = read_starts(workdir)
    path = Path(workdir) / RUN
    _write(path, json.dumps({"starts": [*starts, start]}, indent=2))
    if not starts:
        return []
    before = starts[-1]
    was = {**(before.get("versions") or {}), "git revision": before.get("git")}
    now = {**start["versions"], "git revision": start["git"]}
    if "convolutions" in before and "convolutions" in start:
        was["convolutions"], now["convolutions"] = before["convolutions"], start["convolutions"]
    return [f"{name} was {was.get(name)} and is {now[name]}" for name in now if was.get(name) != now[name]]


def write_paper_deviations(workdir: Path, paper_deviations: Sequence[str]) -> None:
    """Writes departures.json: the run's deviations from the paper, one
    sentence each, for the report.
    """
    _write(workdir / PAPER_DEVIATIONS, json.dumps(list(paper_deviations), indent=2))


def write_parameters(workdir: Path, params: Mapping[str, Any]) -> None:
    """Writes parameters.txt: name, shape, type and size of every array of
    the networks, as a table.
    """
    from clu import parameter_overview  # slow to import

    _write(workdir / PARAMETERS, parameter_overview.get_parameter_overview(params, include_stats=False) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): free it or give another --workdir") from error
