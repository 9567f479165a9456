"""Is a path in a bucket?

Such a path is `gs://BUCKET/FOLDER`, or `gs:/BUCKET/FOLDER` after `pathlib`.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from maskanim_jax.errors import UserError

_SCHEME = re.compile(r"gs:/+")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


class Address(NamedTuple):
    """A folder in a bucket."""

    bucket: str
    folder: str
    """Without leading and trailing slashes; "" for the bucket itself."""

    def __str__(self) -> str:
        return f"gs://{self.bucket}/{self.folder}".rstrip("/")

    def __truediv__(self, name: str) -> Address:
        return Address(self.bucket, f"{self.folder}/{name}".strip("/"))

    @property
    def prefix(self) -> str:
        """The prefix of the names of all objects in the folder."""
        return f"{self.folder}/" if self.folder else ""


def address_of(path: str | os.PathLike[str] | None) -> Address | None:
    """The address of `path`; None for a local path.

    Raises UserError for an address without a valid bucket.
    """
    text = os.fspath(path) if path is not None else ""
    if not (scheme := _SCHEME.match(text)):
        return None
    bucket, *names = text[scheme.end() :].split("/")
    if not _BUCKET.fullmatch(bucket) or {".", ".."} & set(names):
        raise UserError(f"{text} is not a folder in a bucket: give gs://BUCKET/FOLDER")
    return Address(bucket, "/".join(name for name in names if name))


def shown(path: str | os.PathLike[str]) -> str:
    """`path` as a user writes it: `pathlib` removes one of the slashes."""
    address = address_of(path)
    return str(path) if address is None else str(address)
