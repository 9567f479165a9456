"""What may be given from Python as a picture, a driving and an output? Checked here for `maskanim_jax.api`."""

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
"""One picture: a path (of a video its first frame), a Pillow image, or (H, W, 3) uint8 RGB."""
Driving = str | os.PathLike[str] | np.ndarray | Iterable[np.ndarray]
"""A path of a video, gif or folder of frames, or (H, W, 3) uint8 RGB frames: (N, H, W, 3), a list, a generator."""
Option = str | float | bool
"""An option of the system by its name in `python -m maskanim_jax.animate --help`, as text, a number or a truth value."""


def read_once(driving: Driving) -> bool:
    """Whether the driving's frames can be read only once, as a generator's."""
    return not isinstance(driving, str | os.PathLike | np.ndarray) and iter(driving) is driving


def read_picture(given: Picture) -> np.ndarray:
    """(H, W, 3) uint8; raises UserError for what is none."""
    if isinstance(given, Image.Image):
        return to_rgb(given)
    if isinstance(given, str | os.PathLike):
        return first_frame(user_path(given))
    return checked(given)


def checked(frame: np.ndarray) -> np.ndarray:
    """The frame; raises UserError when it is no (H, W, 3) uint8."""
    values = np.asarray(frame)
    if values.dtype != np.uint8 or values.ndim != 3 or values.shape[2] != 3 or 0 in values.shape:
        raise UserError(
            f"a frame is a (H, W, 3) uint8 array of RGB, not {values.shape} {values.dtype}: "
            "take three channels, and 255 times what lies in [0, 1]"
        )
    return values


def read_frames(driving: Driving, stack: ExitStack) -> Iterator[np.ndarray]:
    """The driving's frames, checked as they come; `stack` closes the file."""
    if isinstance(driving, str | os.PathLike):
        return iter(stack.enter_context(open_frames(user_path(driving))))
    return (checked(frame) for frame in driving)


def clip_facts(driving: Driving) -> tuple[int | None, Timing, Path | None]:
    """(number of frames if known, when each is shown, file with the sound)."""
    if isinstance(driving, FrameSource):
        return driving.count, driving.timing, driving.path
    count = len(driving) if isinstance(driving, np.ndarray | Sequence) else None
    return count, Timing.at_rate(FOLDER_FPS), None


def exact_rate(fps: float | Fraction) -> Fraction:
    """Frames per second as a fraction that containers can hold; raises UserError for 0 and less."""
    if not 0 < fps < float("inf"):
        raise UserError(f"fps={fps} cannot be: give a number above 0")
    return fps if isinstance(fps, Fraction) else Fraction(fps).limit_denominator(1001)


def refuse_inputs(output: str | os.PathLike[str], *given: object) -> None:
    """Raises UserError when the output is one of the given paths or holds one."""
    target = user_path(output).resolve()
    for path in given:
        if isinstance(path, str | os.PathLike):
            resolved = user_path(path).resolve()
            if target in (resolved, *resolved.parents):
                raise UserError(f"{output} is or holds an input; choose another output, so that nothing is lost")
