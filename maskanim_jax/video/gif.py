"""How is a GIF written?

With the best 256 colours of each frame, and times in hundredths of a second.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import av.error
import numpy as np
from av.filter import Graph

from maskanim_jax.video.timing import Timing

SHORTEST = 2
"""The shortest frame duration in hundredths of a second: browsers play shorter delays as 10."""
HEAD = 13
"""Bytes before the palette."""
_TICK = Fraction(1, 100)


class GifSink:
    """Writes a GIF with the duration of its frames; above 50 frames per second some frames are
    dropped.
    """

    def __init__(self, path: Path, timing: Timing, comment: str = "") -> None:
        self.path, self.timing, self.comment = path, timing, comment
        self.count = self.left_out = 0
        self.waiting: np.ndarray | None = None
        self.at = self.emitted = 0
        """Hundredths of a second at which the waiting frame starts."""
        self.graph: Graph | None = None
        self.output = av.open(f"file:{path}", "w", format="gif")
        self.video = self.output.add_stream("gif", rate=100)

    def write(self, frame: np.ndarray) -> None:
        start = self.timing.seconds(self.timing.start(self.count)) / _TICK
        self.count += 1
        if self.waiting is not None:
            if start <= self.at:  # the waiting frame would have no duration
                self.left_out += 1
            else:
                self._emit()
                self.at = max(round(start), self.at + SHORTEST)
        self.waiting = np.ascontiguousarray(frame)

    def finish(self) -> None:
        end = max(round(self.timing.seconds(self.timing.stop(self.count)) / _TICK), SHORTEST)
        if end - self.at < SHORTEST:  # the gif would last longer than its frames
            self.left_out += 1
        else:
            self._emit()
        self._pass(None)
        self.output.mux(self.video.encode(None))
        self.output.close()
        _set_last_delay(self.path, end - self.emitted)
        if self.comment:
            _comment(self.path, self.comment)

    def abort(self) -> None:
        with suppress(av.error.FFmpegError, OSError):  # the file is discarded
            self.output.close()

    @property
    def note(self) -> str:
        """How the result differs from the given frames, as a clause."""
        if not self.left_out:
            return ""
        return f"{self.left_out} of {self.count} frames dropped: browsers show at most 50 frames of a gif per second"

    def _emit(self) -> None:
        assert self.waiting is not None
        if self.graph is None:
            self._build(*self.waiting.shape[:2])
        picture = av.VideoFrame.from_ndarray(self.waiting, format="rgb24")
        picture.pts, picture.time_base = self.at, _TICK
        self.emitted = self.at
        self._pass(picture)

    def _build(self, height: int, width: int) -> None:
        self.video.height, self.video.width, self.video.pix_fmt = height, width, "pal8"
        self.graph = graph = Graph()
        rgb = av.VideoFormat("rgb24")
        entry = graph.add_buffer(width=width, height=height, format=rgb, time_base=_TICK)
        split = graph.add("split")
        palette = graph.add("palettegen", "stats_mode=single")
        use = graph.add("paletteuse", "new=1:dither=sierra2_4a")
        entry.link_to(split)
        split.link_to(palette, 0, 0)
        split.link_to(use, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(graph.add("buffersink"))
        graph.configure()

    def _pass(self, picture: av.VideoFrame | None) -> None:
        assert self.graph is not None
        self.graph.vpush(picture)
        while True:
            try:
                mapped = self.graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            self.output.mux(self.video.encode(mapped))


def _set_last_delay(path: Path, hundredths: int) -> None:
    """Sets the duration of a GIF's last frame; FFmpeg repeats that of the frame before."""
    with path.open("r+b") as file:
        file.seek(10)
        _skip_palette(file, file.read(3)[0])
        last = None
        while (kind := file.read(1)) and kind != b"\x3b":
            if kind == b"\x21":
                if file.read(1) == b"\xf9":
                    last = file.tell() + 2  # after the block's length and flags
            else:  # a picture: position and size, palette, code width
                _skip_palette(file, file.read(9)[8])
                file.seek(1, 1)
            while length := file.read(1)[0]:
                file.seek(length, 1)
        if last is not None:
            file.seek(last)
            file.write(min(hundredths, 0xFFFF).to_bytes(2, "little"))


def _skip_palette(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 << (flags & 7) + 1, 1)


def _comment(path: Path, comment: str) -> None:
    """Puts a comment extension, at most 255 bytes, before the first picture of a GIF; FFmpeg writes
    none.
    """
    text = comment.encode("ascii", "replace")[:255]
    beside = path.with_name(f"{path.name}.comment")
    try:
        with path.open("rb") as plain, beside.open("wb") as marked:
            head = plain.read(HEAD)
            colours = 3 << (head[10] & 7) + 1 if head[10] & 0x80 else 0  # bytes of the global palette
            marked.write(head + plain.read(colours) + b"\x21\xfe" + bytes([len(text)]) + text + b"\x00")
            shutil.copyfileobj(plain, marked)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
