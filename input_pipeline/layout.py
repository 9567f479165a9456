"""Which clips lie under ROOT/train and ROOT/test?"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from maskanim_jax.errors import UserError

SPLITS = ("train", "test")
VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".webm")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

Kind = Literal["video", "gif", "stacked", "folder", "unknown"]


@dataclass(frozen=True)
class RawClip:
    """One entry of a split. `kind` follows from its name; whether it can be read shows when it is decoded."""

    path: Path
    name: str
    """Unique within its split: the entry's name without its suffix."""
    identity: str
    """The part of the name before the first `#`, else the whole name."""
    kind: Kind


def kind_of(path: Path) -> Kind:
    """The kind that the name (and for a folder the file system) says; "unknown" for everything else."""
    if path.is_dir():
        return "folder"
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix == ".gif":
        return "gif"
    return "stacked" if suffix in IMAGE_SUFFIXES else "unknown"


def _stem(path: Path) -> str:
    # Tai-Chi and VoxCeleb are commonly cut into FOLDERS that keep the name of the video, `ID#rest.mp4/`.
    known = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES, ".gif")
    return path.stem if path.suffix.lower() in known else path.name


def raw_clip(path: Path, name: str | None = None) -> RawClip:
    """Describes one entry of a split without opening it."""
    name = name or _stem(path)
    return RawClip(path, name, name.split("#", 1)[0] or name, kind_of(path))


def find_clips(root: Path) -> dict[str, list[RawClip]]:
    """All entries of each split that exists, sorted by name; hidden entries are passed over.

    A file of an unknown kind is listed too, so that it is reported and not silently forgotten.
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
        # Two entries that differ in the suffix alone keep their whole names.
        clips = [raw_clip(path, path.name if stems[_stem(path)] > 1 else None) for path in entries]
        if clips:
            found[split] = sorted(clips, key=lambda clip: clip.name)
    if not found:
        present = " and ".join(f"{split}/" for split in SPLITS if (root / split).is_dir())
        what = f"{present} of {root} is empty" if present else f"{root} has neither train/ nor test/"
        raise UserError(f"{what}; put videos or folders of frames into {root / 'train'} and {root / 'test'}")
    return found
