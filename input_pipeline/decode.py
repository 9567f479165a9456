"""How does a raw clip become RGB frames, one at a time?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from input_pipeline.layout import IMAGE_SUFFIXES, RawClip, natural_key
from maskanim_jax.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_FPS = Fraction(25)
"""Frame rate of folders without clip.json and of stacked images, which carry none."""
BACKGROUND = (255, 255, 255)
"""What shines through transparent pixels: white, as cartoons are drawn for a white page."""


def stream_frames(clip: RawClip) -> tuple[Fraction, Iterator[np.ndarray]]:
    """The frame rate (frames per second) and an iterator of (H, W, 3) uint8 RGB frames.

    One frame is held at a time (a stacked image is one file and is held whole). Grey becomes RGB, transparent
    becomes white, a rotation stored in the file is applied. A gif's frame rate is the mean over its delays.
    Raises UserError, here or while iterating, when the file is missing, is not what its name says, or ends
    before the frames that it promises.
    """
    if clip.path.is_symlink() and not clip.path.exists():
        raise UserError(f"{clip.path} is a link to nothing; mend or remove it")
    if clip.kind == "video":
        return _stream_video(clip.path)
    if clip.kind == "gif":
        return _stream_gif(clip.path)
    if clip.kind == "folder":
        return _stream_folder(clip.path)
    if clip.kind == "stacked":
        return DEFAULT_FPS, _stream_stacked(clip.path)
    raise UserError(f"{clip.path} is no clip of a known kind (mp4, mov, avi, webm, gif, png, jpg, folder); remove it")


def resize_square(frame: np.ndarray, size: int) -> np.ndarray:
    """Centre crop of (H, W, 3) uint8 to a square, then Lanczos (antialiased) to (size, size, 3)."""
    from PIL import Image

    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(square)
    image = Image.fromarray(np.ascontiguousarray(square))
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def _stream_video(path: Path) -> tuple[Fraction, Iterator[np.ndarray]]:
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path} holds no video; remove it or give a video file")
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate or DEFAULT_FPS
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{path} is not a readable video (cut short, or another kind of file); fetch it again"
        ) from error
    return Fraction(rate), _video_frames(path)


def _video_frames(path: Path) -> Iterator[np.ndarray]:
    import av

    seen, end = 0, 0.0
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            promised = _promised_frames(container, stream)
            rate = float(stream.average_rate or stream.guessed_rate or DEFAULT_FPS)
            for frame in container.decode(stream):
                seen += 1
                end = max(end, (frame.time or 0.0) + 1 / rate)
                if any(component.is_alpha for component in frame.format.components):
                    picture = _over_background(frame.to_ndarray(format="rgba"))
                else:
                    picture = frame.to_ndarray(format="rgb24")
                if frame.rotation:
                    picture = np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
                yield picture
            seconds = _promised_seconds(container, stream)
    except (av.FFmpegError, OSError) as error:
        raise UserError(
            f"{path} cannot be decoded after frame {seen}, so it is damaged or cut short; fetch it again"
        ) from error
    if seen < promised:
        raise UserError(f"{path} is cut short: {seen} of its {promised} frames could be decoded; fetch it again")
    if seconds - end > 1.5 / rate:
        raise UserError(f"{path} is cut short: its video ends at {end:.2f} of {seconds:.2f} s; fetch it again")


def _promised_frames(container: Any, stream: Any) -> int:
    """How many frames the container says it shows; 0 where it says nothing."""
    if "mp4" in container.format.name:
        # An edit list hides frames from the player: the header's plain count is too high for trimmed files.
        shown = sum(not entry.is_discard for entry in stream.index_entries)
        return min(shown, stream.frames or shown)
    return stream.frames


def _promised_seconds(container: Any, stream: Any) -> float:
    """When the video ends by the container's word, for Matroska and WebM, which count no frames; else 0."""
    if "matroska" not in container.format.name:
        return 0.0
    stamp = stream.metadata.get("DURATION", "")
    parts = stamp.strip("\x00 ").split(":")
    try:
        return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    except ValueError:
        pass
    # With sound beside it the file's duration may be that of the sound.
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return 0.0


def _stream_gif(path: Path) -> tuple[Fraction, Iterator[np.ndarray]]:
    from PIL import Image

    try:
        with Image.open(path, formats=["GIF"]) as image:
            count = getattr(image, "n_frames", 1)
            total = 0
            for index in range(count):
                image.seek(index)
                delay = image.info.get("duration", 0)
                # Browsers play delays of at most 10 ms as 100 ms, and authors rely on it.
                total += delay if delay > 10 else 100
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is not a readable gif (cut short, or another kind of file); fetch it again") from error
    return Fraction(1000 * count, round(total)), _gif_frames(path, count)


def _gif_frames(path: Path, count: int) -> Iterator[np.ndarray]:
    from PIL import Image

    index = 0
    try:
        with Image.open(path, formats=["GIF"]) as image:
            for index in range(count):
                image.seek(index)
                yield _to_rgb(image)
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be decoded after frame {index}, so it is damaged; fetch it again") from error


def _stream_folder(path: Path) -> tuple[Fraction, Iterator[np.ndarray]]:
    frames = [f for f in path.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")]
    if not frames:
        raise UserError(f"{path} holds no png or jpg frames; fill or remove it")
    return _folder_rate(path), (read_image(frame) for frame in sorted(frames, key=natural_key))


def _folder_rate(path: Path) -> Fraction:
    note = path / "clip.json"
    if not note.exists():
        return DEFAULT_FPS
    try:
        rate = Fraction(str(json.loads(note.read_text(encoding="utf-8"))["fps"]))
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f'{note} does not say a frame rate; write {{"fps": "25/1"}} or remove it') from error
    if rate <= 0:
        raise UserError(f"{note} says a frame rate of {rate}; write one above zero or remove it")
    return rate


def _stream_stacked(path: Path) -> Iterator[np.ndarray]:
    strip = read_image(path)
    side, width = strip.shape[:2]
    if width % side:
        raise UserError(f"{path} is {width} x {side} pixels, no row of square frames; cut it to a multiple of {side}")
    for left in range(0, width, side):
        yield np.ascontiguousarray(strip[:, left : left + side])


def read_image(path: Path) -> np.ndarray:
    """One png or jpg as (H, W, 3) uint8 RGB, over white. Raises UserError when it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return _to_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} is not a readable image (cut short, or another kind of file); fetch it again"
        ) from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion would clip it instead of scaling
        grey = (np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return _over_background(np.asarray(image.convert("RGBA")))
    return np.array(image.convert("RGB"))


def _over_background(rgba: np.ndarray) -> np.ndarray:
    alpha = rgba[..., 3:].astype(np.float32) / 255
    return (rgba[..., :3] * alpha + np.asarray(BACKGROUND, np.float32) * (1 - alpha) + 0.5).astype(np.uint8)
