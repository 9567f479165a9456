"""Which images, driving videos and outputs does the Python API accept? They are checked here."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.utils.paths import user_path
from maskanim_jax.video.images import to_rgb
from maskanim_jax.video.reader import FOLDER_FPS, FrameSource, first_frame, open_frames
from maskanim_jax.video.timing import Timing

Picture = str | os.PathLike[str] | np.ndarray | Image.Image
"""One image: a path (a video gives its first frame), a Pillow image, or (H, W, 3) uint8 RGB."""
Driving = str | os.PathLike[str] | np.ndarray | Iterable[np.ndarray]
"""Path of a video, gif or folder of frames, or uint8 RGB frames:
(N, H, W, 3), a list or a generator.
"""
Option = str | float | bool
"""Value of a system's option (see `python -m maskanim_jax.animate --help`): text, number or bool.
"""


def read_once(driving: Driving) -> bool:
    """Whether the driving frames can be read only once, like those of a generator."""
    return not isinstance(driving, str | os.PathLike | np.ndarray) and iter(driving) is driving


def read_picture(given: Picture) -> np.ndarray:
    """Reads an image as (H, W, 3) uint8. Raises UserError for anything else."""
    if isinstance(given, Image.Image):
        return to_rgb(given)
    if isinstance(given, str | os.PathLike):
        return first_frame(user_path(given))
    return checked(given)


def checked(frame: np.ndarray) -> np.ndarray:
    """The frame itself. Raises UserError unless it is (H, W, 3) uint8."""
    values = np.asarray(frame)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3 or 0 in values.shape:
        raise UserError(
            f"a frame is a (H, W, 3) uint8 array of RGB, not {values.shape} {values.dtype}: "
            "take three channels, and multiply values in [0, 1] by 255"
        )
    return values


def read_frames(driving: Driving, stack: ExitStack) -> Iterator[np.ndarray]:
    """Iterates over the driving frames and checks each; `stack` closes the file."""
    if isinstance(driving, str | os.PathLike):
        return iter(stack.enter_context(open_frames(user_path(driving))))
    return (checked(frame) for frame in driving)


def clip_facts(driving: Driving) -> tuple[int | None, Timing, Path | None]:
    """(number of frames if known, timestamps, file with the sound)."""
    if isinstance(driving, FrameSource):
        return driving.count, driving.timing, driving.path
    count = len(driving) if isinstance(driving, np.ndarray | Sequence) else None
    return count, Timing.at_rate(FOLDER_FPS), None


def exact_rate(fps: float | Fraction) -> Fraction:
    """Frames per second as a fraction that containers can hold.

    Raises UserError unless positive.
    """
    if not 0 < fps < float("inf"):
        raise UserError(f"fps={fps} must be a number above 0")
    return fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)


def refuse_inputs(output: str | os.PathLike[str], *given: object) -> None:
    """Raises UserError when the output is one of the inputs or a folder that contains one."""
    target = user_path(output).resolve()
    for path in given:
        if isinstance(path, str | os.PathLike):
            resolved = user_path(path).resolve()
            if target in (resolved, *resolved.parents):
                raise UserError(f"{output} is or contains an input and would overwrite it; choose another output")
