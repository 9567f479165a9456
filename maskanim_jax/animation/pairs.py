"""Which source is animated by which driving video, when a CSV lists many pairs?"""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from maskanim_jax.errors import UserError, check_size

COLUMNS = ("source", "driving")
NAME_LENGTH = 80
"""Bytes of each of the two names in a result's name: file systems allow 255 together."""
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Pair:
    """One row: two paths that exist, and the line of the CSV where it stands."""

    line: int
    source: Path
    driving: Path

    def output_name(self, number: int) -> str:
        """A file name that no other row has, whatever the rows share."""
        return f"{number:04d}-{shortened(self.source.stem)}-{shortened(self.driving.stem)}.mp4"


def read_pairs(path: Path, data: Path | None) -> list[Pair]:
    """The rows of a CSV with the columns `source` and `driving` (others are ignored).

    A path is absolute, or relative to `data` or to the CSV's folder. Raises UserError, with the line number,
    for a row whose files do not exist, and for a CSV that is missing, empty or without the columns.
    """
    try:
        check_size(path, MAX_BYTES)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column '{missing[0]}'; its first line must be source,driving")
            roots = [root for root in (data, path.parent) if root is not None]
            pairs = [
                Pair(
                    reader.line_num,
                    *(_find(path, reader.line_num, name, row[name], roots) for name in COLUMNS),
                )
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise UserError(f"{path} cannot be read ({reason}); give a CSV with the columns source,driving") from error
    if not pairs:
        raise UserError(f"{path} lists no pairs; add a line such as image.png,video.mp4 below source,driving")
    return pairs


def shortened(stem: str) -> str:
    """A name that leaves room for others beside it, whole characters of at most NAME_LENGTH bytes."""
    whole = os.fsencode(stem)
    return whole[:NAME_LENGTH].decode("utf-8", "ignore") if len(whole) > NAME_LENGTH else stem


def _find(path: Path, line: int, column: str, name: str | None, roots: list[Path]) -> Path:
    if not name or not name.strip():
        raise UserError(f"{path} line {line} has no {column}; give a path there")
    for root in roots:
        found = root / os.path.expanduser(name.strip())  # an absolute name stays as it is
        with suppress(OSError, ValueError):  # too long, or no name at all
            if found.exists():
                return found
    raise UserError(f"{path} line {line}: the {column} {name} does not exist; mend the line or give --data=ROOT")
