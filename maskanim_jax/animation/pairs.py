"""How are pairs of source and driving video read from a CSV?"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from maskanim_jax.errors import UserError, check_size

COLUMNS = ("source", "driving")
NAME_LENGTH = 80
"""Maximum bytes of each of the two names in a result's file name; file systems allow 255 in all."""
MAX_BYTES = 64 << 20


@dataclass(frozen=True)
class Pair:
    """One row: two existing paths and the row's line number in the CSV."""

    line: int
    source: Path
    driving: Path

    def output_name(self, number: int) -> str:
        """A unique file name for this row's result."""
        return f"{number:04d}-{shortened(self.source.stem)}-{shortened(self.driving.stem)}.mp4"


@dataclass(frozen=True)
class ClipPair:
    """Indices of two clips of a split, and the first driving frame that is used."""

    source: int
    driving: int
    frame: int = 0


def read_clip_pairs(path: Path, names: Sequence[str]) -> tuple[list[ClipPair], int]:
    """The pairs of a published list, and the number of pairs that are missing.

    The CSV has the columns source, driving and optionally frame. `names` are the clips of a split;
    the list names them with or without suffix. Pairs with a missing clip are skipped, since many
    videos of the published sets are no longer available. Raises UserError for another kind of file,
    and when no pair is left.
    """
    number = {name: index for index, name in enumerate(names)}
    pairs, absent = [], 0
    for line, row in _rows(path):
        clips = [(row[column] or "").strip() for column in COLUMNS]
        found = [number.get(clip, number.get(clip.removesuffix(Path(clip).suffix))) for clip in clips]
        frame = (row.get("frame") or "0").strip()
        if not frame.isdecimal():
            raise UserError(f"{path} line {line} has the frame '{frame[:20]}': give a number from 0")
        if found[0] is None or found[1] is None:
            absent += 1
        else:
            pairs.append(ClipPair(found[0], found[1], int(frame)))
    if not pairs:
        raise UserError(
            f"{path} has no pair of two clips of the test split: give the list that belongs to these shards"
        )
    return pairs, absent


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """The rows of a CSV with the columns `source` and `driving`, with line numbers.

    Raises UserError.
    """
    try:
        check_size(path, MAX_BYTES)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column '{missing[0]}'; its first line must be source,driving")
            for row in reader:
                yield reader.line_num, row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UserError(f"{path} cannot be read ({reason}); give a CSV with the columns source,driving") from error


def read_pairs(path: Path, data: Path | None) -> list[Pair]:
    """The rows of a CSV with the columns `source` and `driving` (other columns are ignored).

    A path is absolute, or relative to `data` or to the CSV's folder. Raises UserError, with the
    line number, for a row whose files do not exist, and for a CSV that is missing, empty or without
    the columns.
    """
    roots = [root for root in (data, path.parent) if root is not None]
    pairs = [Pair(line, *(_find(path, line, name, row[name], roots) for name in COLUMNS)) for line, row in _rows(path)]
    if not pairs:
        raise UserError(f"{path} lists no pairs; add a line such as image.png,video.mp4 below source,driving")
    return pairs


def shortened(stem: str) -> str:
    """The name, truncated to whole characters of at most NAME_LENGTH bytes."""
    whole = os.fsencode(stem)
    return whole[:NAME_LENGTH].decode("utf-8", "ignore") if len(whole) > NAME_LENGTH else stem


def _find(path: Path, line: int, column: str, name: str | None, roots: list[Path]) -> Path:
    if not name or not name.strip():
        raise UserError(f"{path} line {line} has no {column}; give a path there")
    for root in roots:
        found = root / os.path.expanduser(name.strip())  # an absolute name is kept
        with suppress(OSError, ValueError):  # the name is too long or invalid
            if found.exists():
                return found
    raise UserError(f"{path} line {line}: the {column} {name} does not exist; correct the line or give --data=ROOT")
