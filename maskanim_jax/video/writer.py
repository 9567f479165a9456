"""How is a result written? As H.264 with the driving video's sound, as GIF, or as a folder of lossless PNGs.

Everything is written to a temporary name beside the target and renamed at the end: a run that fails leaves
what was there.
"""

from __future__ import annotations

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
from maskanim_jax.video.encoders import GifSink, H264Sink

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov"}
MADE = "made with maskanim_jax: a still image animated by a driving video"
"""The comment in the metadata of every animation, so that a program can tell it from a recording. It doesn't name the system: studies are blind."""
NUMBERED = re.compile(r"\d{6}\.png")


class Sink(Protocol):
    """Takes frames one by one and writes them to a temporary path."""

    def write(self, frame: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def abort(self) -> None: ...


class VideoWriter:
    """Writes (H, W, 3) uint8 frames of one size to `path`; a context manager.

    `path`: *.mp4, *.m4v, *.mov, *.gif, or a folder (it exists, or ends with "/") for 000000.png, 000001.png
    `fps` is kept as the exact fraction (a GIF counts in hundredths of a second and keeps the average).
    `audio_from`: its sound goes into mp4 and mov, packets copied; only a codec that the container cannot hold
    is re-encoded, to AAC. `comment` is written into the file's metadata, of a folder into each picture's.

    The target appears when the block ends without an exception; else it stays as it was. Raises UserError at
    once if the target cannot be written, and at the end if no frame came.
    """

    def __init__(self, path: str | Path, fps: Fraction, audio_from: Path | None = None, comment: str = "") -> None:
        self.path, self.comment = Path(path), comment
        self.count = 0
        self._folder = is_folder(path)
        self._temporary = _reserve(path)
        try:
            self._sink = self._open_sink(Fraction(fps), audio_from)
        except BaseException:
            _remove(self._temporary)
            raise

    def _open_sink(self, fps: Fraction, audio_from: Path | None) -> Sink:
        if self._folder:
            return PngSink(self._temporary, self.comment)
        if self.path.suffix.lower() == ".gif":
            return GifSink(self._temporary, fps, self.comment)
        return H264Sink(self._temporary, fps, CONTAINERS[self.path.suffix.lower()], audio_from, self.comment)

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
            raise UserError(f"{self.path} was not written, since no frame came; check the driving video")
        try:
            self._sink.finish()
            _replace(self._temporary, self.path)
        except OSError as error:
            raise self._unwritten(error) from error


class PngSink:
    """Numbered lossless pictures in a folder."""

    def __init__(self, folder: Path, comment: str = "") -> None:
        self.folder = folder
        self.count = 0
        self.facts = PngInfo()
        if comment:
            self.facts.add_text("Comment", comment)

    def write(self, frame: np.ndarray) -> None:
        Image.fromarray(frame).save(self.folder / f"{self.count:06d}.png", pnginfo=self.facts)
        self.count += 1

    def finish(self) -> None:
        pass

    def abort(self) -> None:
        pass


def is_folder(path: str | Path) -> bool:
    """Whether `path` asks for a folder of PNGs."""
    return str(path).endswith(("/", os.sep)) or Path(path).is_dir()


def check_writable(path: str | Path) -> None:
    """Raises UserError if `VideoWriter` could not write `path`; makes missing parent folders."""
    _remove(_reserve(path))


def _reserve(path: str | Path) -> Path:
    """Makes an empty file or folder beside the target, which shows that the target can be written."""
    target = Path(path)
    folder = is_folder(path)
    if not folder and target.suffix.lower() not in {*CONTAINERS, ".gif"}:
        raise UserError(f"{path} is no kind of output; end it with .mp4, .mov, .gif, or / for a folder of png files")
    if folder and target.is_dir():
        others = [p.name for p in _entries(target) if not NUMBERED.fullmatch(p.name)]
        if others:
            raise UserError(f"{path} holds other files ({min(others)}); give a new folder")
    temporary = target.absolute().parent / f".{target.name[:100]}.{os.getpid()}.part"
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)  # of a process that died and had the same number
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
    """Renames; an earlier folder of results goes only after the new one has its place."""
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
