"""Which clips does a published table of Tai-Chi-HD, VoxCeleb or UvA-NEMO list, and which
can be cut from my videos?

A table has the columns video_id, start, end, bbox, fps, width, height, partition and optionally
person_id. `start` and `end` count frames at `fps`; `bbox` is left-top-right-bottom in pixels of
`width` x `height`. For videos of other rates and sizes, times and boxes are converted.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from input_pipeline.preparation.boxes import MAX_BYTES, MAX_NUMBER, Box, ClipRange
from input_pipeline.preparation.clips import SPLITS, RawClip, identity_of, kind_of
from maskanim_jax.errors import UserError, check_size

COLUMNS = ("video_id", "start", "end", "bbox", "fps", "width", "height", "partition")
PAPERS: dict[str, dict[str, dict[str, int]]] = {
    "taichi_hd": {"FOMM": {"train": 3049, "test": 285}, "Perturbed Masks": {"train": 3016, "test": 125}},
    "voxceleb_256": {"FOMM": {"train": 12331, "test": 444}, "Perturbed Masks": {"train": 18556, "test": 485}},
    "uva_nemo": {"FOMM": {"train": 1116, "test": 124}},
}
"""Number of clips in each paper, by data set and paper: many videos have
been removed since then.
"""
_BOX = re.compile(r"\s*" + r"-".join([r"(-?\d+(?:\.\d+)?)"] * 4) + r"\s*")
_IN_BRACKETS = re.compile(r"\[([\w-]{11})\]$")  # yt-dlp's default file names
_VIDEO_KINDS = ("video", "gif", "folder")


@dataclass(frozen=True)
class Published:
    """One clip of a table."""

    video: str
    """The video's id: the name of its file without the suffix."""
    name: str
    """[person_id#]video_id#START#END, as the authors' tool names its files."""
    split: str
    start: int
    end: int
    """Exclusive; both count frames at `fps`."""
    fps: Fraction
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    """Width and height of the video in which the box was measured."""

    def clip_range(self, fps: Fraction, width: int, height: int) -> ClipRange:
        """The range in a video of this rate and size.

        Frame i belongs to the clip when start x fps <= i x table's fps < end x fps. Rates are
        rounded to two decimals, as in the tables: 30000/1001 is 29.97 there.
        """
        rate = Fraction(round(float(fps), 2)).limit_denominator(100)
        start, end = (math.ceil(frame * rate / self.fps) for frame in (self.start, self.end))
        scale = (width / self.size[0], height / self.size[1])
        corners = [int(corner * scale[place % 2]) for place, corner in enumerate(self.box)]
        box: Box = (corners[0], corners[1], corners[2], corners[3])
        return ClipRange(start, max(end, start + 1), box, as_published=True)


@dataclass(frozen=True)
class Table:
    """All clips of a table, and which data set it is: a key of PAPERS, or "video_folder"."""

    path: Path
    rows: tuple[Published, ...]
    of: str

    def videos(self) -> dict[str, list[Published]]:
        """The clips of each video, in the table's order."""
        found: dict[str, list[Published]] = {}
        for row in self.rows:
            found.setdefault(row.video, []).append(row)
        return found


def read_table(path: Path) -> Table:
    """Reads a table. Raises UserError with the line of an invalid row."""
    rows: list[Published] = []
    try:
        check_size(path, MAX_BYTES)
        with open(path, newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            absent = [column for column in COLUMNS if column not in (table.fieldnames or ())]
            if absent:
                raise UserError(
                    f"{path} has no column {', '.join(absent)}: give one of the authors' tables, with {','.join(COLUMNS)}[,person_id]"
                )
            rows = [_row(path, table.line_num, cells) for cells in table]
            people = "person_id" in (table.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a table ({error}): give a CSV file in UTF-8") from error
    if not rows:
        raise UserError(f"{path} has no rows: download the table again")
    return Table(path, tuple(rows), _set_of(path, people))


def find_videos(folder: Path) -> dict[str, Path]:
    """Finds videos by id: files such as FOLDER/ID.mp4, folders of frames ID, names ending in [ID].

    Raises UserError.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: give the folder of the videos, or create it and add --download")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or kind_of(path) not in _VIDEO_KINDS or path.suffix == ".part":
            continue
        stem = path.name if path.is_dir() else path.stem
        found.setdefault(stem, path)
        if named := _IN_BRACKETS.search(stem):
            found.setdefault(named[1], path)
    return found


def clips_of(table: Table, folder: Path) -> tuple[dict[str, list[RawClip]], list[dict[str, str]]]:
    """The clips that can be cut from the videos in `folder`, by split, and the others as
    {"split", "clip", "reason"}.

    Every existing video is opened to read its rate and size. Raises UserError when there is none.
    """
    videos = find_videos(folder)
    clips: dict[str, list[RawClip]] = {split: [] for split in SPLITS}
    left: list[dict[str, str]] = []
    for video, rows in table.videos().items():
        path = videos.get(video)
        if path is None:
            reason = f"the video {video} is not in {folder}"
            left += [{"split": row.split, "clip": row.name, "reason": reason} for row in rows]
            continue
        try:
            facts = _facts(path)
        except UserError as error:
            left += [{"split": row.split, "clip": row.name, "reason": str(error)} for row in rows]
            continue
        for row in rows:
            clips[row.split].append(
                RawClip(path, row.name, identity_of(row.name), kind_of(path), row.clip_range(*facts))
            )
    if not any(clips.values()):
        raise UserError(
            f"none of the {len(table.videos())} videos of {table.path} can be read from {folder}: name them ID.mp4, or add --download"
        )
    by_bytes = {
        split: sorted(found, key=lambda clip: os.fsencode(clip.name)) for split, found in clips.items() if found
    }
    return by_bytes, left


def summary(table: Table, folder: Path, splits: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """For report.json: clips in the `table` and `missing` by split, `missing_videos`, and a
    comparison with `papers`.
    """
    videos = find_videos(folder)
    gone = sorted(video for video in table.videos() if video not in videos)
    made = {split: count["clips"] for split, count in splits.items()}
    return {
        "set": table.of,
        "table": _count(table.rows),
        "made": made,
        "missing": _count(row for row in table.rows if row.video not in videos),
        "missing_videos": gone,
        "papers": {
            paper: {split: {"clips": clips, "here": made.get(split, 0)} for split, clips in counts.items()}
            for paper, counts in PAPERS.get(table.of, {}).items()
        },
    }


def messages(about: Mapping[str, Any]) -> list[str]:
    """The summary as lines for the command."""
    missing, table = about["missing"], about["table"]
    said = []
    if about["missing_videos"]:
        listed = ", ".join(f"{missing[split]} of {table[split]} {split} clips" for split in missing)
        said.append(f"{len(about['missing_videos'])} videos of the table are missing, which removes {listed}")
    for paper, counts in about["papers"].items():
        listed = " and ".join(f"{count['here']:,} of {count['clips']:,} {split}" for split, count in counts.items())
        said.append(f"{paper}'s paper had {' and '.join(_of(counts))} clips; here there are {listed}")
    return said


def _of(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [f"{count['clips']:,} {split}" for split, count in counts.items()]


def _count(rows: Iterable[Published]) -> dict[str, int]:
    counted = Counter(row.split for row in rows)
    return {split: counted[split] for split in SPLITS if counted[split]}


def _set_of(path: Path, people: bool) -> str:
    name = path.name.lower()
    if people or "vox" in name:
        return "voxceleb_256"
    return "uva_nemo" if "nemo" in name else "taichi_hd" if "taichi" in name else "video_folder"


def _facts(path: Path) -> tuple[Fraction, int, int]:
    """(frames per second, width, height) of the upright frames. Raises UserError."""
    from maskanim_jax.video.reader import open_frames

    with open_frames(path) as source:
        frame = next(iter(source), None)
        if frame is None:
            raise UserError(f"{path} has no frames: get the video again")
        return source.fps, frame.shape[1], frame.shape[0]


def _row(path: Path, line: int, cells: Mapping[str, str | None]) -> Published:
    values = {column: (cells.get(column) or "").strip() for column in (*COLUMNS, "person_id")}
    where = f"line {line} of {path}"
    try:
        start, end = (round(float(values[name])) for name in ("start", "end"))
        fps = Fraction(values["fps"])
        size = round(float(values["width"])), round(float(values["height"]))
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise UserError(f"{where} has a cell that is not a number: download the table again") from error
    if not (0 <= start < end <= MAX_NUMBER and 0 < fps <= 1000 and all(0 < side <= 1 << 16 for side in size)):
        raise UserError(
            f"{where} asks for frames {start} to {end} at {values['fps']} per second of {size[0]} x {size[1]}: correct it"
        )
    box = _BOX.fullmatch(values["bbox"])
    if not box:
        raise UserError(f"{where} has the box '{values['bbox'][:60]}' instead of left-top-right-bottom: correct it")
    corners = [float(corner) for corner in box.groups()]
    if corners[0] >= corners[2] or corners[1] >= corners[3]:
        raise UserError(f"{where} has the empty box '{values['bbox']}': correct it")
    if values["partition"] not in SPLITS:
        raise UserError(
            f"{where} has the partition '{values['partition'][:60]}', not one of {', '.join(SPLITS)}: correct it"
        )
    if not values["video_id"] or "/" in values["video_id"] + values["person_id"]:
        raise UserError(f"{where} names no video: correct it")
    name = _name(values["video_id"], values["person_id"], start, end)
    video = values["video_id"].split("#")[0]
    return Published(
        video, name, values["partition"], start, end, fps, (corners[0], corners[1], corners[2], corners[3]), size
    )


def _name(video: str, person: str, start: int, end: int) -> str:
    """The file name of the authors' tool: the parts of a video's id around a `#` are reversed."""
    parts: Sequence[str] = [*([person] if person else []), *reversed(video.split("#"))]
    return "#".join([*parts, f"{start:06d}", f"{end:06d}"])
