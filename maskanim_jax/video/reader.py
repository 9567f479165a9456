"""How are frames read? From a video, a gif, a folder of frames or one image, all through one
interface.

Frames are (H, W, 3) uint8 RGB, upright, with square pixels, transparency laid over white.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import av
import av.error
import numpy as np
from av.stream import Disposition
from PIL import Image

from maskanim_jax.errors import UserError, check_regular
from maskanim_jax.utils import json_files
from maskanim_jax.video.animated_images import moving, read_moving
from maskanim_jax.video.hdr import ToneMapper, is_hdr
from maskanim_jax.video.images import (
    MAX_PIXELS,
    check_pixels,
    is_image,
    is_still,
    missing,
    natural_key,
    one_line,
    read_image,
    to_rgb,
)
from maskanim_jax.video.integrity import (
    READ_ONLY_THIS_FILE,
    check_not_truncated,
    declared_frame_count,
    declared_seconds,
    ends_whole,
)
from maskanim_jax.video.orientation import Matrix, OrientationReader, upright
from maskanim_jax.video.timestamps import measure
from maskanim_jax.video.timing import RATES, Timing

FOLDER_FPS = Fraction(25)
"""Frames per second of inputs without a rate: an image, or a folder without clip.json."""
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's native decoders of these codecs ignore transparency, so others are used."""
_LONGEST_NOTE = 1 << 20

Frames = Generator[np.ndarray, None, None]


@dataclass
class FrameSource:
    """Frames of one clip, read lazily. Each iteration restarts at the first frame."""

    path: Path
    count: int | None
    """Number of frames as declared by the container, or None."""
    read: Callable[[Timing | None], Frames]
    """Reads the frames and records their timestamps in `timing`."""
    measured: Callable[[], Timing]
    opened: list[Frames] = field(default_factory=list)

    @cached_property
    def timing(self) -> Timing:
        """Timestamps of the frames. The first access demuxes a video once, without decoding it."""
        return self.measured()

    @property
    def fps(self) -> Fraction:
        """Frames per second, exact if the rate is constant, else the mean over the clip."""
        return self.timing.rate

    def __iter__(self) -> Iterator[np.ndarray]:
        frames = self.read(self.__dict__.get("timing"))
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


def open_frames(path: str | Path) -> FrameSource:
    """Opens a video (any format of FFmpeg), an animated image, a folder of frames (natural order)
    or an image.

    A folder's frame rate is that of its clip.json, {"fps": "30000/1001"}, or 25. Raises UserError,
    here or while iterating, for a missing, empty, truncated or undecodable file.
    """
    path = Path(path)
    if not path.exists():
        raise missing(path, "give a video, a folder of frames or an image")
    try:
        check_regular(path)
        if path.is_dir():
            return _open_folder(path)
        if is_image(path) or is_still(path):
            return _open_moving(path, "image")
        check_not_truncated(path)
        with path.open("rb") as file:
            gif = file.read(4) == b"GIF8"
    except OSError as error:
        raise UserError(f"{path} cannot be read ({one_line(error)}); give one that you may read") from error
    return _open_moving(path, "gif") if gif else _open_video(path)


def first_frame(path: str | Path) -> np.ndarray:
    """The image, or the first frame of the clip, as (H, W, 3) uint8. Raises UserError like
    `open_frames`.
    """
    with open_frames(path) as frames:
        return next(iter(frames))


def _open_folder(path: Path) -> FrameSource:
    images = sorted((entry for entry in path.iterdir() if is_image(entry)), key=natural_key)
    if not images:
        raise UserError(f"{path} holds no frames; give a folder with png or jpg files, or a video")
    rate = _folder_rate(path / "clip.json")
    return FrameSource(path, len(images), lambda _: _read_images(images), lambda: Timing.at_rate(rate))


def _folder_rate(note: Path) -> Fraction:
    if not note.exists():
        return FOLDER_FPS
    try:
        text = str(json_files.read(note, _LONGEST_NOTE)["fps"])
        if not re.fullmatch(r"-?[\d.]{1,20}(/\d{1,20})?", text):
            raise ValueError("no rate")  # 1e999999999 as a fraction would fill the memory with zeros
        rate = Fraction(text)
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f'{note} has no frame rate; write {{"fps": "25/1"}} or remove it') from error
    if rate <= 0:
        raise UserError(f"{note} has the frame rate {rate}; write one above zero or remove it")
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{note} has the frame rate {float(rate):g}; write one from 0.001 to 10000 or remove it")
    return rate


def _read_images(images: list[Path]) -> Frames:
    for image in images:
        yield read_image(image)


def _open_moving(path: Path, kind: str) -> FrameSource:
    """A gif or an image with one or more frames, read by Pillow: for several frames, FFmpeg's rate
    is not the mean over all.
    """
    found = moving(path, kind)
    if found is None:
        return FrameSource(path, 1, lambda _: _read_images([path]), lambda: Timing.at_rate(FOLDER_FPS))

    def read(_: Timing | None) -> Frames:
        yield from read_moving(path, found.frames, kind)

    return FrameSource(path, found.frames, read, lambda: found.timing)


def _open_video(path: Path) -> FrameSource:
    with _open_container(path) as container:
        declared = declared_frame_count(_picture_stream(container)) or None
    return FrameSource(path, declared, lambda timing: _read_video(path, timing), lambda: _measure(path))


def _measure(path: Path) -> Timing:
    with _open_container(path) as container:
        return measure(container, _picture_stream(container))


def _read_video(path: Path, timing: Timing | None) -> Frames:
    seen, last, step = 0, 0.0, 0.04  # step: the longest time in seconds between two frames
    tone_mapper, matrix_of = ToneMapper(), OrientationReader()
    with _open_container(path) as container:
        stream = _picture_stream(container)
        declared = declared_frame_count(stream)  # before decoding: a fragmented file's index grows meanwhile
        decoder = _decoder(stream)
        try:
            for packet in container.demux(stream):
                for frame in decoder.decode(packet):
                    check_pixels(path, frame.width, frame.height)
                    time = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
                    if timing is not None:
                        timing.record(seen, time)
                    seen += 1
                    if time is not None:
                        step = max(step, float(time) - last) if seen > 1 else step
                        last = float(time)
                    yield _shown(frame, stream.sample_aspect_ratio, matrix_of(frame), tone_mapper)
        except av.error.FFmpegError as error:
            reason = one_line(error)
            raise UserError(f"{path} is corrupt after frame {seen} ({reason}); copy or download it again") from error
        seconds = declared_seconds(container, stream)
    if seen == 0:
        raise UserError(f"{path} holds no frames; copy or download the video again")
    if seen < declared:
        raise UserError(f"{path} is truncated: {seen} of its {declared} frames could be decoded; copy it again")
    if seconds - last > 2.5 * step and not ends_whole(path):  # a last picture may be shown for long
        raise UserError(f"{path} is truncated: its video ends at {last:.2f} of {seconds:.2f} s; copy it again")


def _decoder(stream: av.VideoStream) -> av.VideoCodecContext:
    decoder = stream.codec_context
    name = ALPHA_DECODERS.get(decoder.name, "")
    if stream.metadata.get("alpha_mode") == "1" and name in av.codecs_available:
        other = av.CodecContext.create(name, "r")
        assert isinstance(other, av.VideoCodecContext)
        decoder = other
    decoder.thread_type = "AUTO"
    # Headers do not show a size that changes within the clip.
    decoder.options = {
        **decoder.options,
        "max_pixels": str(MAX_PIXELS),
    }
    return decoder


def _shown(frame: av.VideoFrame, aspect: Fraction | None, matrix: Matrix | None, tone_mapper: ToneMapper) -> np.ndarray:
    """8-bit RGB with square pixels, over white, with the display matrix applied."""
    width = frame.width
    if aspect and width * frame.height * aspect < MAX_PIXELS and Fraction(1, 4) < aspect < 4:
        width = max(1, round(width * aspect))
    if is_hdr(frame):
        frame = tone_mapper(frame)
    if any(component.is_alpha for component in frame.format.components):
        picture = to_rgb(Image.fromarray(frame.to_ndarray(format="rgba", width=width)))
    else:
        picture = frame.to_ndarray(format="rgb24", width=width)
    return upright(picture, matrix)


def _picture_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first video stream that is not cover art."""
    return next(stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic)


def _open_container(path: Path) -> av.container.InputContainer:
    try:
        # "file:" keeps names with a colon from being taken for a protocol; playlists may not fetch anything
        container = av.open(f"file:{path}", options=READ_ONLY_THIS_FILE)
    except (av.error.FFmpegError, OSError) as error:
        reason = one_line(error)
        raise UserError(f"{path} is not a video, or is truncated ({reason}); give a complete video file") from error
    covers = [stream.disposition & Disposition.attached_pic for stream in container.streams.video]
    if all(covers) or container.format.name == "tty":
        container.close()
        what = "holds no video, only sound with a cover picture" if covers else "holds no video"
        raise UserError(f"{path} {what}; give a video, a folder of frames or an image")
    context = _picture_stream(container).codec_context
    try:
        check_pixels(path, context.width, context.height)
    except UserError:
        container.close()
        raise
    return container
