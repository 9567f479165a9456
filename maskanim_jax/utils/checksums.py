"""How is a folder checked for damage?

With `SHA256SUMS` in it, the format of `sha256sum --check`.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import atomic_write

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class CorruptFileError(UserError):
    """A file is missing or corrupt. The message names it; the caller adds what to do."""


def write_sums(folder: Path) -> None:
    """Writes the hash of every file under `folder` to its `SHA256SUMS` and syncs all of it to the
    disk.

    The page cache of the files is dropped, so that the next read sees what is on the disk. Raises
    OSError.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{_digest(path, settle=True)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    with atomic_write(folder / SUMS) as temporary:
        temporary.write_text("".join(lines))
        sync(temporary)
    for inner in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
        sync(inner)


def check_sums(folder: Path, only: str | None = None) -> bool:
    """Compares the files (or only `only`, relative to `folder`) with `SHA256SUMS`.

    Returns False if there is no `SHA256SUMS`. Raises CorruptFileError for the first file that
    differs. Files that are not listed are ignored.
    """
    try:
        text = (folder / SUMS).read_bytes().decode()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise CorruptFileError(f"{folder / SUMS} can't be read ({error})") from error
    matches = [_LINE.fullmatch(line) for line in text.splitlines()]
    listed = {match[2]: match[1] for match in matches if match}
    if not listed or None in matches or not text.endswith("\n") or (only is not None and only not in listed):
        raise CorruptFileError(f"{folder / SUMS} is not the list of checksums that was written")
    for name in listed if only is None else [only]:
        path = folder / name
        try:
            if not path.is_file():
                raise CorruptFileError(f"{path} is missing")
            if _digest(path) != listed[name]:
                raise CorruptFileError(f"{path} is not what was saved (its SHA-256 differs)")
        except OSError as error:
            raise CorruptFileError(f"{path} can't be read ({error.strerror})") from error
    return True


def listed_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 by name from a folder's `SHA256SUMS`, as far as it can be read."""
    try:
        lines = (folder / SUMS).read_bytes().decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    return {match[2]: match[1] for line in lines if (match := _LINE.fullmatch(line))}


def sync(path: Path) -> None:
    """Syncs a file, or the entries of a folder, to the disk. Raises OSError."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _digest(path: Path, settle: bool = False) -> str:
    """SHA-256 of a file; `settle` first syncs it to the disk and then
    drops it from the page cache.
    """
    with path.open("rb") as file:
        if settle:
            os.fsync(file.fileno())
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if settle and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return found
