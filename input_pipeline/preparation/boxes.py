"""Which part of a clip is kept? All frames and the centre square, or the rows of a table of boxes.

Tai-Chi-HD and VoxCeleb are published as such tables: a video, the frames from start to end, and a
box around the person.
"""

from __future__ import annotations

import csv
import unicodedata
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from maskanim_jax.errors import UserError, check_size
from maskanim_jax.video.images import square

COLUMNS = ("clip", "start", "end", "x0", "y0", "x1", "y1")
MAX_BYTES = 256 << 20
MAX_NUMBER = 1 << 31
Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels of the upright frame; x1 and y1 are exclusive."""


@dataclass(frozen=True)
class ClipRange:
    """Frames start, ..., end - 1 of a clip (end None: to the last), cropped to `box`
    (None: the whole frame).
    """

    start: int = 0
    end: int | None = None
    box: Box | None = None
    as_published: bool = False
    """Crop as the authors' tool does: stretch the box to a square, and accept
    a video that ends early.
    """

    @property
    def suffix(self) -> str:
        """The suffix that makes the name of this part of the clip unique; empty for all frames."""
        return "" if (self.start, self.end) == (0, None) else f"#{self.start}-{'end' if self.end is None else self.end}"


@dataclass(frozen=True)
class Row:
    """One row of a table: the range, and the identity if the table has that column."""

    clip_range: ClipRange
    identity: str | None
    line: int


def read_boxes(path: Path) -> dict[str, list[Row]]:
    """Reads a CSV file with the columns clip, start, end, x0, y0, x1, y1 and optionally identity.

    `clip` is an entry's name, with or without its suffix. `start` and `end` count frames from 0,
    `end` is exclusive; empty cells mean all frames, four empty box cells the whole frame. Returns
    the rows of each clip, by `key_of` its name. Raises UserError with the line of an invalid row.
    """
    rows: dict[str, list[Row]] = {}
    try:
        check_size(path, MAX_BYTES)
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            absent = [column for column in COLUMNS if column not in (table.fieldnames or ())]
            if absent:
                raise UserError(f"{path} has no column {', '.join(absent)}; its first line must be {','.join(COLUMNS)}")
            for cells in table:
                row = _row(path, table.line_num, cells)
                rows.setdefault(key_of(cells["clip"].strip()), []).append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error}); give a CSV file in UTF-8") from error
    if not rows:
        raise UserError(f"{path} has no rows; write one for each clip, under {','.join(COLUMNS)}")
    return rows


def key_of(name: str) -> str:
    """A name in Unicode's composed form: file systems and tables may encode the
    same accent in two ways.
    """
    return unicodedata.normalize("NFC", name)


def crop_square(frame: np.ndarray, box: Box | None, size: int, stretch: bool = False) -> np.ndarray:
    """Crops (H, W, 3) uint8 to the box and to its centre square, and resizes it to (size, size, 3).

    With `stretch` the whole box is resized, whatever its aspect ratio.

    Raises UserError, without a path, when the box lies outside the frame.
    """
    if box is not None:
        height, width = frame.shape[:2]
        x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
        if x0 >= x1 or y0 >= y1:
            raise UserError(f"the box {box} lies outside its frames of {width} x {height}; correct the table of boxes")
        frame = frame[y0:y1, x0:x1]
    if stretch:
        return np.array(Image.fromarray(np.ascontiguousarray(frame)).resize((size, size), Image.Resampling.LANCZOS))
    return square(np.ascontiguousarray(frame), size, "crop")


def _row(path: Path, line: int, cells: dict[str, str | None]) -> Row:
    values = {column: (cells.get(column) or "").strip() for column in COLUMNS}
    try:
        start, end, *corners = (round(float(values[column])) if values[column] else None for column in COLUMNS[1:])
    except (ValueError, OverflowError) as error:
        raise UserError(f"line {line} of {path} has a cell that is not a number; correct it") from error
    if any(abs(number) > MAX_NUMBER for number in (start, end, *corners) if number is not None):
        raise UserError(f"line {line} of {path} has a number above {MAX_NUMBER:,}; correct it")
    if not values["clip"]:
        raise UserError(f"line {line} of {path} names no clip; fill in the first cell or remove the line")
    if (start or 0) < 0 or (end is not None and end <= (start or 0)):
        raise UserError(f"line {line} of {path} has the empty range of frames {start} to {end}; correct it")
    known = [corner for corner in corners if corner is not None]
    if len(known) not in (0, 4):
        raise UserError(f"line {line} of {path} has an incomplete box; fill in x0, y0, x1 and y1, or none of them")
    if known and (known[0] >= known[2] or known[1] >= known[3]):
        raise UserError(f"line {line} of {path} has the empty box {tuple(known)}; x1 and y1 must be above x0 and y0")
    box = (known[0], known[1], known[2], known[3]) if known else None
    return Row(ClipRange(start or 0, end, box), (cells.get("identity") or "").strip() or None, line)
