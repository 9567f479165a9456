"""How does a raw clip become RGB frames, one at a time?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from input_pipeline.preparation.boxes import Piece, crop_square
from input_pipeline.preparation.clips import RawClip
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import missing, read_image
from maskanim_jax.video.reader import FOLDER_FPS, Frames, open_frames
from maskanim_jax.video.timing import Timing


def stream_frames(clip: RawClip) -> tuple[Timing, Frames]:
    """The times of the frames, and an iterator of (H, W, 3) uint8 RGB frames, as `video.open_frames` reads them.

    One frame is held at a time (a stacked image is one file, is held whole, and has 25 frames per second).
    Raises UserError, here or while iterating, when the file is missing, of no known kind, or not whole.
    """
    if not clip.path.exists():
        raise missing(clip.path, "give another")
    if clip.kind == "unknown":
        raise UserError(
            f"{clip.path} is no clip of a known kind (mp4, m4v, mov, mkv, avi, webm, ts, mts, gif, png, jpg, folder); remove it"
        )
    if clip.kind == "stacked":
        return Timing.at_rate(FOLDER_FPS), _stacked(clip.path)
    source = open_frames(clip.path)
    return source.timing, source.read(source.timing)


class SquareFrames(NamedTuple):
    """What is stored of a clip."""

    fps: Fraction
    """Frames per second, exact."""
    frames: Iterator[np.ndarray]
    """(size, size, 3) uint8 each."""
    resampled: bool = False
    """Whether the clip's own frames are shown at a variable rate."""


def square_frames(clip: RawClip, size: int) -> SquareFrames:
    """The frame rate and the (size, size, 3) uint8 frames of the clip's piece: its box, or else the centre square.

    Shards state one rate for a clip. A clip whose frames are shown at a variable rate is resampled to a constant one, so that each frame
    is seen when the clip shows it: frames that stand longer are repeated. A piece is counted in the clip's own frames.

    Raises UserError, here or while iterating, for whatever keeps the clip from being read; its sentence has the clip's path.
    """
    try:
        timing, frames = stream_frames(clip)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # one strange file among twenty thousand must not end the preparation of the others
        raise _strange(clip, error) from error
    pieces = _pieces(clip, frames, size)
    if timing.constant:
        return SquareFrames(timing.rate, pieces)
    piece = clip.piece or Piece()
    shown = _resampled(pieces, timing.cut(piece.start, whole=piece.end is None))
    return SquareFrames(timing.steady, shown, resampled=True)


def _resampled(frames: Iterator[np.ndarray], timing: Timing) -> Iterator[np.ndarray]:
    """Frames at the timing's steady rate: each as often as its own time asks for."""
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


def _pieces(clip: RawClip, frames: Frames, size: int) -> Iterator[np.ndarray]:
    piece, seen = clip.piece or Piece(), 0
    with closing(frames):
        try:
            for frame in itertools.islice(frames, piece.start, piece.end):
                yield crop_square(frame, piece.box, size, piece.as_published)
                seen += 1
        except UserError as error:
            text = str(error)
            raise error if str(clip.path) in text else UserError(f"{clip.path} is left out: {text}") from error
        except MemoryError:
            raise
        except Exception as error:
            raise _strange(clip, error) from error
    if piece.end is not None and seen < (1 if piece.as_published else piece.end - piece.start):
        has = f"{piece.start + seen} frames" if seen else f"no frame {piece.start}"
        raise UserError(
            f"{clip.path} has {has}, but the table of boxes asks for frames {piece.start} to {piece.end}; correct one of them"
        )


def _strange(clip: RawClip, error: Exception) -> UserError:
    first = (str(error).splitlines() or [""])[0]
    return UserError(f"{clip.path} cannot be decoded ({type(error).__name__}: {first}); save it again or remove it")


def _stacked(path: Path) -> Frames:
    strip = read_image(path)
    side, width = strip.shape[:2]
    if width % side:
        raise UserError(f"{path} is {width} x {side} pixels, no row of square frames; cut it to a multiple of {side}")
    for left in range(0, width, side):
        yield np.ascontiguousarray(strip[:, left : left + side])
