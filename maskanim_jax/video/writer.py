"""How is a result written? As H.264 with the driving video's sound, as GIF, or as a folder of PNGs.

Everything is written to a temporary path beside the target and renamed at the end, so that a failed
run leaves an existing target unchanged.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from maskanim_jax.errors import UserError
from maskanim_jax.utils.paths import hidden_beside
from maskanim_jax.video.encoders import H264Sink
from maskanim_jax.video.gif import GifSink
from maskanim_jax.video.timing import Timing

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
PROVENANCE_COMMENT = "made with maskanim_jax: a still image animated by a driving video"
"""Comment in the metadata of every animation, so that programs can tell it from a recording.

It does not name the system, since user studies are blind.
"""
CLIP = "clip.json"
"""File in a folder of frames with their rate, {"fps": "30000/1001"}."""
NUMBERED = re.compile(r"\d{6}\.png")


class Sink(Protocol):
    """Takes frames one by one and writes them to a temporary path."""

    @property
    def note(self) -> str:
        """How the result differs from the given frames, as a clause; empty if it does not."""

    def write(self, frame: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class VideoWriter:
    """Writes (H, W, 3) uint8 frames of one size to `path`; a context manager.

    `path`: *.mp4, *.m4v, *.mov, *.gif, or a folder (it exists, or ends with "/") for
    000000.png, 000001.png. `fps` is a frame rate, kept as an exact fraction, or a `Timing`. mp4
    and mov keep the exact timestamps, a GIF keeps them to a hundredth of a second, and a folder
    has a constant rate, for which frames are repeated or dropped; `note` then says so.
    `audio_from` is a file whose sound is added to mp4 and mov. Its packets are copied if
    browsers and phones play them, else re-encoded as AAC. `cut`: the frames are only the first
    part of that file, so the sound ends with them. `comment` is written to the file's metadata,
    or to that of each image in a folder.

    The target appears when the block ends without an exception; otherwise it stays unchanged.
    Raises UserError at once if the target cannot be written, and at the end if there was no frame.
    """

    def __init__(
        self,
        path: str | Path,
        fps: Fraction | Timing,
        audio_from: Path | None = None,
        comment: str = "",
        cut: bool = False,
    ) -> None:
        self.path, self.comment, self.cut = Path(path), comment, cut
        self.count = 0
        self._folder = is_folder(path)
        self._temporary = _reserve(path)
        try:
            timing = fps if isinstance(fps, Timing) else Timing.at_rate(Fraction(fps))
            self._sink: Sink = self._open_sink(timing, audio_from)
        except BaseException:
            _remove(self._temporary)
            raise

    def _open_sink(self, timing: Timing, audio_from: Path | None) -> Sink:
        if self._folder:
            return PngSink(self._temporary, timing, self.comment)
        if self.path.suffix.lower() == ".gif":
            return GifSink(self._temporary, timing, self.comment)
        container = CONTAINERS[self.path.suffix.lower()]
        return H264Sink(self._temporary, timing, container, audio_from, self.comment, self.cut)

    @property
    def note(self) -> str:
        """How the result differs from the given frames, as a clause, or empty; final when the block
        has ended.
        """
        return self._sink.note

    def write(self, frame: np.ndarray) -> None:
        """Appends one frame; raises UserError if the disk is full or gone."""
        try:
            self._sink.write(frame)
        except OSError as error:
            raise self._unwritten(error) from error
        self.count += 1

    def _unwritten(self, error: OSError) -> UserError:
        reason = error.strerror or type(error).__name__
        return UserError(f"{self.path} cannot be written ({reason}); free some space or choose another output")

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        done = False
        try:
            if kind is None:
                self._finish()
                done = True
        finally:
            if not done:
                self._sink.abort()
                _remove(self._temporary)

    def _finish(self) -> None:
        if self.count == 0:
            raise UserError(f"{self.path} was not written, since there was no frame; check the driving video")
        try:
            self._sink.finish()
            _replace(self._temporary, self.path)
        except OSError as error:
            raise self._unwritten(error) from error


class PngSink:
    """Numbered lossless pictures in a folder, at a constant rate."""

    def __init__(self, folder: Path, timing: Timing, comment: str = "") -> None:
        self.folder, self.timing = folder, timing
        self.count = self.written = 0
        self.waiting: np.ndarray | None = None
        self.facts = PngInfo()
        if comment:
            self.facts.add_text("Comment", comment)

    def write(self, frame: np.ndarray) -> None:
        if self.timing.constant:
            self._save(frame)
        else:
            self._repeat(self.timing.start(self.count))
            self.waiting = frame
        self.count += 1

    def finish(self) -> None:
        if not self.timing.constant:
            self._repeat(self.timing.stop(self.count))
        # so that the folder has the right rate when used as a driver
        rate = self.timing.rate if self.timing.constant else self.timing.steady
        (self.folder / CLIP).write_text(json.dumps({"fps": f"{rate.numerator}/{rate.denominator}"}) + "\n")

    def abort(self) -> None:
        pass

    @property
    def note(self) -> str:
        """How the result differs from the given frames, as a clause."""
        if self.timing.constant:
            return ""
        rate = float(self.timing.steady)
        return (
            f"{self.count} frames with a variable rate became {self.written} at a constant {rate:g} frames per second"
        )

    def _repeat(self, tick: int) -> None:
        """Saves the waiting frame as often as it is shown before a tick at the constant rate."""
        end = self.timing.slot(tick)
        while self.waiting is not None and self.written < end:
            self._save(self.waiting)

    def _save(self, frame: np.ndarray) -> None:
        Image.fromarray(frame).save(self.folder / f"{self.written:06d}.png", pnginfo=self.facts)
        self.written += 1


def is_folder(path: str | Path) -> bool:
    """Whether `path` asks for a folder of PNGs."""
    return str(path).endswith(("/", os.sep)) or Path(path).is_dir()


def check_writable(path: str | Path) -> None:
    """Raises UserError if `VideoWriter` could not write `path`; creates missing parent folders."""
    _remove(_reserve(path))


def _reserve(path: str | Path) -> Path:
    """Creates an empty temporary file or folder beside the target, to test that it can be
    written; returns its path.
    """
    target = Path(path)
    folder = is_folder(path)
    if not folder and target.suffix.lower() not in {*CONTAINERS, ".gif"}:
        raise UserError(
            f"{path} has an unsupported format; end it with .mp4, .mov, .gif, or / for a folder of png files"
        )
    if folder and target.is_dir():
        others = [p.name for p in _entries(target) if p.name != CLIP and not NUMBERED.fullmatch(p.name)]
        if others:
            raise UserError(f"{path} holds other files ({min(others)}); give a new folder")
    temporary = hidden_beside(target, str(os.getpid()))
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)  # left behind by a dead process with the same id
        if folder:
            if target.exists() and not target.is_dir():
                raise NotADirectoryError(None, "a file has that name")
            temporary.mkdir()
        else:
            temporary.touch()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise UserError(f"{path} cannot be written ({reason}); choose a folder that you may write to") from error
    return temporary


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); choose another output") from error


def _replace(temporary: Path, target: Path) -> None:
    """Renames; an earlier folder of results is removed only after the new one is in place."""
    if not target.is_dir():
        os.replace(temporary, target)
        return
    old = temporary.with_suffix(".old")
    os.replace(target, old)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(old, target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
