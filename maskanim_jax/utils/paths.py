"""How are paths given by a user read? `~` is the home folder, and
unsupported addresses are refused.

No other module decides which addresses can be opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from maskanim_jax.errors import UserError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
# As pathlib writes an address: one slash is gone.
_COLLAPSED = re.compile(r"(gs|s3|https?|ftp|hdfs|azure|file):/(?!/)")
_HINTS = {
    "gs": "copy it here with `gcloud storage cp -r` and give that path",
    "s3": "copy it here with `aws s3 cp --recursive` and give that path",
    "http": "download it and give the file",
    "https": "download it and give the file",
    "ftp": "download it and give the file",
    "file": "omit 'file://'",
}
_BUCKET = re.compile(r"gs:/+[^/]")
IN_BUCKETS = ("workdir", "config.data.shards", "config.init_from")
"""Flags of the main command that may be in Google Cloud Storage."""
_NAME_BYTES = 120  # of the original name; file systems allow 255 in all


def user_path(given: str | os.PathLike[str]) -> Path:
    """`given` as a path, with `~` expanded. Raises UserError for an address."""
    return Path(user_text(given))


def user_text(given: str | os.PathLike[str]) -> str:
    """Like `user_path`, but returns text and keeps a trailing slash."""
    text = os.fspath(given)
    if scheme := _scheme(text):
        hint = _HINTS.get(scheme.lower(), "copy the files to this machine and give their path")
        raise UserError(f"{_with_slashes(text)} is an address, not a path on this machine: {hint}")
    return os.path.expanduser(text)


def path_or_bucket(given: str | os.PathLike[str]) -> Path:
    """Like `user_path`, but an address in Google Cloud Storage passes, for those that can open one
    (see `buckets`).
    """
    return Path(text_or_bucket(given))


def text_or_bucket(given: str | os.PathLike[str]) -> str:
    """Like `user_text`, but an address in Google Cloud Storage passes."""
    text = os.fspath(given)
    if _BUCKET.match(text):
        return text
    if _scheme(text) in (None, "gs", "file"):
        return user_text(text)
    raise UserError(
        f"{_with_slashes(text)} is an address that cannot be opened: give a path on this machine, or gs://BUCKET/FOLDER"
    )


def _scheme(text: str) -> str | None:
    """The scheme of an address, such as "s3"; None for a path on this machine."""
    found = _ADDRESS.match(text) or _COLLAPSED.match(text)
    return found[1] if found else None


def _with_slashes(text: str) -> str:
    """An address as the user wrote it: `pathlib` takes one of the slashes away."""
    return re.sub(r"^([A-Za-z0-9+.-]+):/(?!/)", r"\1://", text)


def expand_flags(argv: list[str], names: Sequence[str], sections: Sequence[str]) -> None:
    """`user_text` for the values of the flags `names` in `argv`, in place, as --name=VALUE and
    --name VALUE.

    `sections` are the prefixes of flags (such as "config.") of which only those with a `~` or an
    address are paths.
    """
    for at, argument in enumerate(argv):
        name, given, value = argument.partition("=")
        flag = name.lstrip("-")
        if not argument.startswith("-"):
            continue
        is_path = flag in names
        if flag.startswith(tuple(sections)):
            is_path = value == "~" or value.startswith("~/") or _ADDRESS.match(value) is not None
        expanded = text_or_bucket if flag in IN_BUCKETS else user_text
        if is_path and given:
            argv[at] = f"{name}={expanded(value)}"
        elif is_path and at + 1 < len(argv):
            argv[at + 1] = expanded(argv[at + 1])


def hidden_beside(path: Path, tag: str) -> Path:
    """A hidden path beside `path` for work in progress, `.NAME.TAG.part`,
    truncated to a valid length.
    """
    name = os.fsencode(path.name)[:_NAME_BYTES].decode("utf-8", "ignore")
    return path.absolute().with_name(f".{name}.{tag}.part")
