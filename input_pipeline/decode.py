"""How does a raw clip become RGB frames, one at a time?"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from input_pipeline.layout import RawClip
from maskanim_jax.errors import UserError
from maskanim_jax.images import missing, read_image, square
from maskanim_jax.video import FOLDER_FPS, open_frames


def stream_frames(clip: RawClip) -> tuple[Fraction, Iterator[np.ndarray]]:
    """The frame rate (frames per second) and an iterator of (H, W, 3) uint8 RGB frames, as `video.open_frames` reads them.

    One frame is held at a time (a stacked image is one file, is held whole, and has 25 frames per second).
    Raises UserError, here or while iterating, when the file is missing, of no known kind, or not whole.
    """
    if not clip.path.exists():
        raise missing(clip.path, "give another")
    if clip.kind == "unknown":
        raise UserError(
            f"{clip.path} is no clip of a known kind (mp4, mov, avi, webm, gif, png, jpg, folder); remove it"
        )
    if clip.kind == "stacked":
        return FOLDER_FPS, _stacked(clip.path)
    source = open_frames(clip.path)
    return source.fps, iter(source)


def resize_square(frame: np.ndarray, size: int) -> np.ndarray:
    """The centre square of (H, W, 3) uint8 as (size, size, 3), antialiased."""
    return square(frame, size, "crop")


def _stacked(path: Path) -> Iterator[np.ndarray]:
    strip = read_image(path)
    side, width = strip.shape[:2]
    if width % side:
        raise UserError(f"{path} is {width} x {side} pixels, no row of square frames; cut it to a multiple of {side}")
    for left in range(0, width, side):
        yield np.ascontiguousarray(strip[:, left : left + side])
