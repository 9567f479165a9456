"""Where do frames come from? A video, a GIF, a folder of frames or one image, all streamed the same way.

Frames are (H, W, 3) uint8 RGB, upright. `VideoWriter` is the way back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Literal, get_args

import av
import av.error
import numpy as np
from PIL import Image, ImageOps

from maskanim_jax.animation.whole import check_whole
from maskanim_jax.animation.writer import VideoWriter
from maskanim_jax.errors import UserError

__all__ = [
    "FOLDER_FPS",
    "IMAGE_SUFFIXES",
    "Fit",
    "FrameSource",
    "VideoWriter",
    "first_frame",
    "is_image",
    "open_frames",
    "read_image",
    "square",
]

Fit = Literal["crop", "pad"]
FOLDER_FPS = Fraction(25)
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

Frames = Generator[np.ndarray, None, None]


@dataclass
class FrameSource:
    """Frames of one clip, read as they are asked for. Each iteration starts again at the first frame."""

    path: Path
    fps: Fraction
    """Frames per second, exact as the container states it; of a variable rate, the average."""
    count: int | None
    """Number of frames as the container states it, None where it does not."""
    read: Callable[[], Frames]
    opened: list[Frames] = field(default_factory=list)

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = self.read()
        self.opened.append(frames)
        return frames

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files of all iterations."""
        while self.opened:
            self.opened.pop().close()


def open_frames(path: str | Path, fps: Fraction | None = None) -> FrameSource:
    """Opens a video file (whatever FFmpeg reads, GIF too), a folder of frames (natural order) or one image.

    `fps` is the rate of a folder or an image, 25 unless given; a video has its own. Raises UserError, here or
    while iterating, for a missing, empty, truncated or undecodable file.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give a video, a folder of frames or an image")
    if path.is_dir():
        images = sorted((p for p in path.iterdir() if is_image(p)), key=_natural)
        if not images:
            raise UserError(f"{path} holds no frames; give a folder with png or jpg files, or a video")
        return FrameSource(path, fps or FOLDER_FPS, len(images), lambda: _read_images(images))
    if is_image(path):
        return FrameSource(path, fps or FOLDER_FPS, 1, lambda: _read_images([path]))
    check_whole(path)
    with _open_container(path) as container:
        stream = container.streams.video[0]
        rate = stream.average_rate or stream.guessed_rate or FOLDER_FPS
        return FrameSource(path, Fraction(rate), stream.frames or None, lambda: _read_video(path))


def first_frame(path: str | Path) -> np.ndarray:
    """The image, or the first frame of the clip, as (H, W, 3) uint8. Raises UserError like `open_frames`."""
    with open_frames(path) as frames:
        return next(iter(frames))


def read_image(path: str | Path) -> np.ndarray:
    """One still picture as (H, W, 3) uint8 RGB.

    Turned upright by its EXIF orientation, transparency laid over white, 16 bits scaled to 8.
    Raises UserError if it is missing, no image, cut short or too large to be safe.
    """
    try:
        with Image.open(path) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I") or image.mode == "F":
                return _from_deep_grey(np.asarray(image))
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give an image") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UserError(f"{path} has more than {limit:,} pixels; scale it down first") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path} is no whole image ({_one_line(error)}); save or copy it again") from error


def square(frame: np.ndarray, size: int, fit: Fit = "crop") -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) uint8 with its aspect ratio kept, antialiased.

    "crop" takes the centre square; "pad" shows the whole frame and continues its edge pixels to the square.
    """
    if fit not in get_args(Fit):
        raise UserError(f"fit is crop or pad, not {fit!r}")
    height, width = frame.shape[:2]
    if height == width == size:
        return frame
    image = Image.fromarray(frame)
    if fit == "crop":
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
        return np.array(image.resize((size, size), Image.Resampling.LANCZOS, box=box))
    scale = size / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = np.asarray(image.resize(inner, Image.Resampling.LANCZOS))
    x, y = size - inner[0], size - inner[1]
    return np.pad(picture, ((y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0)), mode="edge")


def is_image(path: Path) -> bool:
    """Whether the name is that of a still picture; hidden files are not."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _natural(path: Path) -> list[tuple[int, int | str]]:
    """frame2 before frame10."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]


def _read_images(images: list[Path]) -> Frames:
    for image in images:
        yield read_image(image)


def _read_video(path: Path) -> Frames:
    count = 0
    with _open_container(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        try:
            for frame in container.decode(stream):
                count += 1
                yield _upright(frame, stream.sample_aspect_ratio)
        except av.error.FFmpegError as error:
            reason = _one_line(error)
            raise UserError(f"{path} is damaged after frame {count} ({reason}); copy or download it again") from error
    if count == 0:
        raise UserError(f"{path} holds no frames; copy or download the video again")


def _upright(frame: av.VideoFrame, aspect: Fraction | None) -> np.ndarray:
    """Square pixels, turned as the container's display matrix says."""
    width = frame.width
    if aspect and Fraction(1, 4) < aspect < 4:
        width = max(1, round(width * aspect))
    picture = frame.to_ndarray(format="rgb24", width=width)
    turns = round(frame.rotation / 90)
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def _open_container(path: Path) -> av.container.InputContainer:
    try:
        # "file:" keeps names with a colon from being taken for a protocol; playlists may not fetch anything
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, OSError) as error:
        reason = _one_line(error)
        raise UserError(f"{path} is not a video, or is cut short ({reason}); give a whole video file") from error
    if not container.streams.video or container.format.name == "tty":
        container.close()
        raise UserError(f"{path} holds no video; give a video, a folder of frames or an image")
    return container


def _from_deep_grey(values: np.ndarray) -> np.ndarray:
    """(H, W) 16-bit integers, or floats in [0, 1] or [0, 255], to (H, W, 3) uint8."""
    if values.dtype.kind == "f":
        scaled = values * (255.0 if values.max(initial=0.0) <= 1.0 else 1.0)
    else:
        scaled = values / (257.0 if values.max(initial=0) > 255 or values.dtype == np.uint16 else 1.0)
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _one_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
