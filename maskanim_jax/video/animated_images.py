"""How are animated images (gif, animated PNG, WebP, AVIF) read?

Pillow decodes one frame at a time. The number of frames and their durations are read beforehand
from the file's frame list, without decoding: a small file can declare a hundred thousand large
frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import av.error
import numpy as np
from PIL import Image, ImageOps

from maskanim_jax.errors import UserError
from maskanim_jax.video.images import check_pixels, moves, one_line, readable, to_rgb
from maskanim_jax.video.integrity import READ_ONLY_THIS_FILE
from maskanim_jax.video.timing import Timing, from_durations

MAX_TOTAL = 1 << 37
"""Pixels of all frames together; 66,000 frames of 1920 x 1080."""
_PNG, _RIFF = b"\x89PNG\r\n\x1a\n", b"RIFF"


class Moving(NamedTuple):
    """Number of frames and their timestamps."""

    frames: int
    timing: Timing


def moving(path: Path, kind: str = "image") -> Moving | None:
    """Frame list of an animated gif, PNG, WebP or AVIF; None for a still image.

    Raises UserError for an incomplete `kind` (image, gif), or one that is too large to be safe.
    """
    with readable(path, kind):
        with path.open("rb") as file:
            head = file.read(12)
            if head[:4] == b"GIF8":
                delays = list(_gif_delays(path))
            elif head[:8] == _PNG:
                delays = list(_png_delays(file))
            elif head[:4] == _RIFF and head[8:] == b"WEBP":
                delays = list(_webp_delays(file))
            elif moves(path):
                delays = list(_avif_delays(path))
            else:
                return None
        if len(delays) < 2 and kind != "gif":
            return None
        with Image.open(path) as image:
            width, height = image.size
        check_pixels(path, width, height)
        if width * height * len(delays) > MAX_TOTAL:
            raise UserError(
                f"{path} has {len(delays):,} frames of {width} x {height}, more than {MAX_TOTAL:,} pixels; cut it first"
            )
        if not delays:
            raise ValueError("it holds no frames")
        # Browsers play delays of at most 10 ms as 100 ms, and authors rely on it.
        shown = [delay if delay > Fraction(1, 100) else Fraction(1, 10) for delay in delays]
        return Moving(len(delays), from_durations(shown))


def read_moving(path: Path, count: int, kind: str = "image") -> Iterator[np.ndarray]:
    """Yields each frame as (H, W, 3) uint8 RGB. Raises UserError when one of `count` cannot be
    decoded.
    """
    with readable(path, kind), Image.open(path) as image:
        first = 1 if image.info.get("default_image") else 0  # a fallback image for programs without animation support
        for index in range(first, first + count):
            image.seek(index)
            yield to_rgb(ImageOps.exif_transpose(image))


def _avif_delays(path: Path) -> Iterator[Fraction]:
    """The delays in milliseconds; Pillow reports them only for decoded frames."""
    with Image.open(path) as image:
        width, height = image.size
        check_pixels(path, width, height)
        count = int(getattr(image, "n_frames", 1))
        if width * height * count > MAX_TOTAL:
            raise UserError(f"{path} has {count:,} frames, more than {MAX_TOTAL:,} pixels; cut it first")
        for index in range(count):
            image.seek(index)
            image.load()
            yield Fraction(image.info.get("duration", 0)).limit_denominator(1000) / 1000


def _gif_delays(path: Path) -> Iterator[Fraction]:
    try:
        with av.open(f"file:{path}", format="gif", options=READ_ONLY_THIS_FILE) as container:
            base = container.streams.video[0].time_base or Fraction(1, 100)
            for packet in container.demux(video=0):
                if packet.size:
                    yield (packet.duration or 0) * base
    except av.error.FFmpegError as error:
        raise OSError(one_line(error)) from error


def _png_delays(file: BinaryIO) -> Iterator[Fraction]:
    """The delay of each fcTL chunk: numerator and denominator in seconds; a
    denominator of 0 means 100.
    """
    file.seek(len(_PNG))
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"fcTL" and length == 26:
            chunk = file.read(length)
            above, below = int.from_bytes(chunk[20:22], "big"), int.from_bytes(chunk[22:24], "big")
            yield Fraction(above, below or 100)
            length = 0
        file.seek(length + 4, 1)  # and its checksum


def _webp_delays(file: BinaryIO) -> Iterator[Fraction]:
    """The delay of each ANMF chunk: milliseconds in bytes 12 to 14."""
    while len(head := file.read(8)) == 8:
        length = int.from_bytes(head[4:], "little")
        begin = file.read(min(length, 16)) if head[:4] == b"ANMF" else b""
        if len(begin) == 16:
            yield Fraction(int.from_bytes(begin[12:15], "little"), 1000)
        file.seek(length - len(begin) + length % 2, 1)
