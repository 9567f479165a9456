"""How is a raw clip decoded into RGB frames, one at a time?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline.preparation.boxes import ClipRange, crop_square
from input_pipeline.preparation.clips import RawClip
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import missing, read_image
from maskanim_jax.video.reader import FOLDER_FPS, Frames, open_frames
from maskanim_jax.video.timing import Timing


def stream_frames(clip: RawClip) -> tuple[Timing, Frames]:
    """Returns the frame times and an iterator of (H, W, 3) uint8 RGB frames, as
    `video.open_frames` reads them.

    One frame is in memory at a time; a stacked image is loaded whole and has 25 frames
    per second. Raises UserError, here or while iterating, when the file is missing,
    truncated or of unknown kind.
    """
    if not clip.path.exists():
        raise missing(clip.path, "give another")
    if clip.kind == "unknown":
        raise UserError(
            f"{clip.path} is not a supported kind of clip (mp4, m4v, mov, mkv, avi, webm, ts, mts, gif, png, jpg, folder); remove it"
        )
    if clip.kind == "stacked":
        return Timing.at_rate(FOLDER_FPS), _stacked(clip.path)
    source = open_frames(clip.path)
    return source.timing, source.read(source.timing)


class SquareFrames(NamedTuple):
    """The frames to store of a clip."""

    fps: Fraction
    """Frames per second, exact."""
    frames: Iterator[np.ndarray]
    """(size, size, 3) uint8 each."""
    resampled: bool = False
    """Whether the clip had a variable frame rate and was resampled."""


def square_frames(clip: RawClip, size: int) -> SquareFrames:
    """The frame rate and the (size, size, 3) uint8 frames of the clip's range, cropped to
    its box or centre square.

    Shards store one frame rate per clip. A clip with a variable rate is resampled to a constant one
    by repeating frames that are shown longer. Ranges count the clip's original frames.

    Raises UserError with the clip's path, here or while iterating, for
    anything that prevents reading.
    """
    try:
        timing, frames = stream_frames(clip)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # one unreadable file in twenty thousand must not stop the others
        raise _strange(clip, error) from error
    pieces = _ranged_frames(clip, frames, size)
    if timing.constant:
        return SquareFrames(timing.rate, pieces)
    clip_range = clip.clip_range or ClipRange()
    shown = _resampled(pieces, timing.cut(clip_range.start, whole=clip_range.end is None))
    return SquareFrames(timing.steady, shown, resampled=True)


def _resampled(frames: Iterator[np.ndarray], timing: Timing) -> Iterator[np.ndarray]:
    """Frames at the timing's steady rate, each repeated for as long as it is shown."""
    waiting, count, given = None, 0, 0
    for frame in frames:
        end = timing.slot(timing.start(count))
        for _ in range(given, end):
            assert waiting is not None
            yield waiting
        waiting, count, given = frame, count + 1, max(given, end)
    if waiting is not None:
        for _ in range(given, max(given + 1, timing.slot(timing.stop(count)))):
            yield waiting


def _ranged_frames(clip: RawClip, frames: Frames, size: int) -> Iterator[np.ndarray]:
    clip_range, seen = clip.clip_range or ClipRange(), 0
    with closing(frames):
        try:
            for frame in itertools.islice(frames, clip_range.start, clip_range.end):
                yield crop_square(frame, clip_range.box, size, clip_range.as_published)
                seen += 1
        except UserError as error:
            text = str(error)
            raise error if str(clip.path) in text else UserError(f"{clip.path} is skipped: {text}") from error
        except MemoryError:
            raise
        except Exception as error:
            raise _strange(clip, error) from error
    if clip_range.end is not None and seen < (1 if clip_range.as_published else clip_range.end - clip_range.start):
        has = f"{clip_range.start + seen} frames" if seen else f"no frame {clip_range.start}"
        raise UserError(
            f"{clip.path} has {has}, but the table of boxes asks for frames {clip_range.start} to {clip_range.end}; correct one of them"
        )


def _strange(clip: RawClip, error: Exception) -> UserError:
    first = (str(error).splitlines() or [""])[0]
    return UserError(f"{clip.path} cannot be decoded ({type(error).__name__}: {first}); save it again or remove it")


def _stacked(path: Path) -> Frames:
    strip = read_image(path)
    side, width = strip.shape[:2]
    if width % side:
        raise UserError(
            f"{path} is {width} x {side} pixels, not a row of square frames; crop it to a multiple of {side}"
        )
    for left in range(0, width, side):
        yield np.ascontiguousarray(strip[:, left : left + side])
