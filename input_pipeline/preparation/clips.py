"""Which clips are in ROOT/train, ROOT/validation and ROOT/test?"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from input_pipeline.preparation.boxes import ClipRange, Row, key_of
from maskanim_jax.errors import UserError

SPLITS = ("train", "validation", "test")
"""validation, which chooses the best checkpoint, is optional; without it, test is used."""
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".avi", ".webm", ".ts", ".mts", ".m2ts")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

Kind = Literal["video", "gif", "stacked", "folder", "unknown"]


@dataclass(frozen=True)
class RawClip:
    """One entry of a split.

    `kind` follows from the name; only decoding shows whether it can be read.
    """

    path: Path
    name: str
    """The entry's name without its suffix, unique within its split."""
    identity: str
    """The part of the name before the first `#`, else the whole name."""
    kind: Kind
    clip_range: ClipRange | None = None
    """The part to keep, from a table of boxes; None: all frames, centre square."""


def kind_of(path: Path) -> Kind:
    """The kind by name (or because it is a folder); "unknown" for everything else."""
    if path.is_dir():
        return "folder"
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix == ".gif":
        return "gif"
    return "stacked" if suffix in IMAGE_SUFFIXES else "unknown"


def _stem(path: Path) -> str:
    # Tai-Chi and VoxCeleb clips are often folders of frames that keep the video's name, `ID#rest.mp4/`.
    known = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, ".gif")
    return path.stem if path.suffix.lower() in known else path.name


def raw_clip(path: Path, name: str | None = None) -> RawClip:
    """Describes one entry of a split without opening it."""
    name = name or _stem(path)
    return RawClip(path, name, identity_of(name), kind_of(path))


def identity_of(name: str) -> str:
    """The part of a clip's name before the first `#`, else the whole name."""
    return name.split("#", 1)[0] or name


def find_clips(root: Path) -> dict[str, list[RawClip]]:
    """All entries of each existing split, sorted by name; hidden entries are skipped.

    Files of an unknown kind are included, so that the report lists them.
    Raises UserError when ROOT is not a folder, has neither train nor test, or both are empty.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder; give the folder that holds train/ and test/")
    found: dict[str, list[RawClip]] = {}
    for split in SPLITS:
        folder = root / split
        if not folder.is_dir():
            continue
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        stems = Counter(_stem(path) for path in entries)
        # Two entries that differ only in the suffix keep it in their names.
        clips = [raw_clip(path, path.name if stems[_stem(path)] > 1 else None) for path in entries]
        if clips:
            # Sorted by bytes: the order does not depend on the machine's locale.
            found[split] = sorted(clips, key=lambda clip: os.fsencode(clip.name))
    if not found:
        present = " and ".join(f"{split}/" for split in SPLITS if (root / split).is_dir())
        what = f"{present} of {root} is empty" if present else f"{root} has neither train/ nor test/"
        raise UserError(f"{what}; put videos or folders of frames into {root / 'train'} and {root / 'test'}")
    return found


def with_boxes(
    found: dict[str, list[RawClip]], boxes: dict[str, list[Row]]
) -> tuple[dict[str, list[RawClip]], list[dict[str, str]]]:
    """Applies a table of boxes to the found clips.

    Returns the clips, and what is skipped as {"split", "clip", "reason"} each. A row with a range
    of frames makes a clip of its own, named CLIP#START-END; its identity is the part before the
    first `#`, unless the row gives one. Entries without a row and rows without an entry are skipped
    (the latter have an empty split).
    """
    left: list[dict[str, str]] = []
    unused = set(boxes)
    cut: dict[str, list[RawClip]] = {}
    for split, clips in found.items():
        pieces: list[RawClip] = []
        for clip in clips:
            keys = {key_of(clip.name), key_of(clip.path.name)}
            unused -= keys
            rows = [row for key in sorted(keys) for row in boxes.get(key, [])]
            if not rows:
                reason = f"{clip.path} has no row in the table of boxes; add one to use it"
                left.append({"split": split, "clip": clip.path.name, "reason": reason})
            names: Counter[str] = Counter()
            for row in rows:
                name = clip.name + row.clip_range.suffix
                names[name] += 1
                name += f"#{names[name]}" if names[name] > 1 else ""  # two boxes of the same frames
                pieces.append(
                    replace(clip, name=name, identity=row.identity or clip.identity, clip_range=row.clip_range)
                )
        if pieces:
            cut[split] = pieces
    for name in sorted(unused):
        reason = (
            f"{name} (line {boxes[name][0].line} of the table of boxes) is missing; get the clip or remove its rows"
        )
        left.append({"split": "", "clip": name, "reason": reason})
    return cut, left
