"""How are the authors' result videos laid out? One row of eleven square panels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.video.reader import open_frames

PANELS = (
    "source",
    "source mask",
    "driving",
    "driving mask",
    "perturbed mask",
    "refined mask",
    "coarse",
    "X2Face",
    "Monkey-Net",
    "FOMM",
    "fine",
)
"""The panels from left to right."""
METHODS = ("X2Face", "Monkey-Net", "FOMM", "coarse", "fine")
"""The panels with animations; "coarse" and "fine" are outputs of Perturbed Masks."""
EDGE = 2
"""White lines between panels touch this many pixels at each side; they are
cropped on all four sides.
"""
CHUNK = 8
"""The number of frames in memory at a time."""

_VIDEOS = frozenset({".mp4", ".gif", ".avi", ".mov", ".mkv", ".webm"})

Panels = dict[str, np.ndarray]
"""(N, S, S, 3) uint8 RGB by name; S is the panel's side without its edges."""


def find_sets(folder: Path) -> dict[str, list[Path]]:
    """The videos by set; a set's name is the videos' folder relative to `folder`.

    Raises UserError if there are none.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder: give one with videos of {len(PANELS)} panels, or with folders of such videos"
        )
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in _VIDEOS and not path.name.startswith("."):
            place = path.parent.relative_to(folder)
            found[folder.resolve().name if place == Path() else place.as_posix()].append(path)
    if not found:
        raise UserError(f"{folder} has no videos: give a folder with videos of {len(PANELS)} panels")
    return dict(found)


def read_panels(path: Path, frames: int) -> Iterator[Panels]:
    """Yields `frames` evenly spaced frames of a video (all if it has fewer), at most `CHUNK` at a
    time. Raises UserError for another layout.
    """
    with open_frames(path) as source:
        count = source.count or sum(1 for _ in source)
        wanted = {int((i + 0.5) * count / frames) for i in range(frames)} if frames < count else set(range(count))
        waiting: list[np.ndarray] = []
        for number, frame in enumerate(source):
            if number in wanted:
                waiting.append(_split(frame, path))
                if len(waiting) == CHUNK:
                    yield _named(waiting)
                    waiting.clear()
    if waiting:
        yield _named(waiting)


def _split(frame: np.ndarray, path: Path) -> np.ndarray:
    """(S, 11 S, 3) to (11, S - 4, S - 4, 3)."""
    side, width = frame.shape[:2]
    if width != len(PANELS) * side or side <= 2 * EDGE:
        raise UserError(f"{path} has frames of {width} x {side} pixels, not one row of {len(PANELS)} square panels")
    panels = frame.reshape(side, len(PANELS), side, 3).transpose(1, 0, 2, 3)
    return panels[:, EDGE:-EDGE, EDGE:-EDGE]


def _named(frames: list[np.ndarray]) -> Panels:
    stacked = np.stack(frames)
    return {name: stacked[:, place] for place, name in enumerate(PANELS)}
