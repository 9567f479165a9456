"""How are frames encoded? H.264 with the sound copied, or GIF with a palette for each frame.

FFmpeg does it, frame by frame, in bounded memory.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.filter import Graph

from maskanim_jax.errors import UserError
from maskanim_jax.video.integrity import READ_ONLY_THIS_FILE

CRF = "17"  # x264's constant quality; no loss that the eye sees
BT601 = 6  # AVCOL_SPC_SMPTE170M: what players assume for small frames, stated all the same
LIMITED_RANGE = 1
GIF_HEAD = 13  # bytes before the palette


Packets = Iterator[tuple[Fraction, av.Packet]]
"""Each with the time at which it begins, in seconds."""


class H264Sink:
    """H.264 in yuv420p; an odd side is made even by repeating its last row or column."""

    def __init__(self, path: Path, fps: Fraction, container: str, audio_from: Path | None, comment: str = "") -> None:
        self.fps = fps
        self.count = 0
        self.output = av.open(f"file:{path}", "w", format=container, options={"movflags": "+faststart"})
        if comment:
            self.output.metadata["comment"] = comment
        try:
            self.video = self.output.add_stream("libx264", rate=fps, options={"crf": CRF})
            self.sound = Sound(audio_from, self.output) if audio_from is not None else None
        except BaseException:
            self.output.close()
            raise

    def write(self, frame: np.ndarray) -> None:
        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        height, width = frame.shape[:2]
        if self.count == 0:
            self._describe(height, width)
        elif (height, width) != (self.video.height, self.video.width):
            raise ValueError("frames of one video must have one size")
        picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=BT601, dst_color_range=LIMITED_RANGE)
        picture.pts, picture.time_base = self.count, 1 / self.fps
        self.output.mux(self.video.encode(picture))
        self.count += 1
        if self.sound is not None:
            self.sound.mux_until(self.count / self.fps)

    def finish(self) -> None:
        self.output.mux(self.video.encode(None))
        if self.sound is not None:
            self.sound.mux_until(None)
        self.output.close()
        self._close_sound()

    def abort(self) -> None:
        with suppress(av.error.FFmpegError, OSError):  # the file is thrown away
            self.output.close()
        self._close_sound()

    def _describe(self, height: int, width: int) -> None:
        self.video.height, self.video.width, self.video.pix_fmt = height, width, "yuv420p"
        context = self.video.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT601
        context.color_range = LIMITED_RANGE

    def _close_sound(self) -> None:
        if self.sound is not None:
            self.sound.close()


class Sound:
    """The first audio stream of a file, muxed bit by bit into `output`. A file without sound gives none."""

    def __init__(self, path: Path, output: av.container.OutputContainer) -> None:
        self.output = output
        self.input: av.container.InputContainer | None = None
        self.packets: Packets = iter(())
        self.waiting: tuple[Fraction, av.Packet] | None = None
        if path.is_dir():
            return
        try:
            self.input = av.open(f"file:{path}", options=READ_ONLY_THIS_FILE)
        except (av.error.FFmpegError, OSError):
            return  # an image as the driving; that it can be read at all is the reader's to say
        if self.input.streams.audio:
            stream = self.input.streams.audio[0]
            copy = stream.codec_context.name in output.supported_codecs
            copy = copy or stream.codec_context.codec.canonical_name in output.supported_codecs
            self.packets = self._copied(stream) if copy else self._encoded(stream)
        self.path = path

    def mux_until(self, time: Fraction | None) -> None:
        """Muxes the packets that begin before `time` (seconds), all that are left with None."""
        try:
            while True:
                self.waiting = self.waiting or next(self.packets, None)
                if self.waiting is None or (time is not None and self.waiting[0] >= time):
                    return
                self.output.mux(self.waiting[1])
                self.waiting = None
        except (av.error.InvalidDataError, av.error.ArgumentError) as error:
            raise UserError(f"{self.path} has damaged sound; save it again without its sound") from error

    def close(self) -> None:
        if self.input is not None:
            self.input.close()

    def _start(self) -> Fraction:
        """When the video that the sound belongs to begins, in seconds: the result begins at 0."""
        assert self.input is not None
        videos = self.input.streams.video
        if not videos or videos[0].start_time is None or videos[0].time_base is None:
            return Fraction(0)
        return videos[0].start_time * videos[0].time_base

    def _copied(self, stream: av.AudioStream) -> Packets:
        assert stream.time_base is not None
        target = self.output.add_stream_from_template(stream)
        shift = round(self._start() / stream.time_base)
        return self._shifted(stream, target, shift)

    def _shifted(self, stream: av.AudioStream, target: av.AudioStream, shift: int) -> Packets:
        assert self.input is not None
        for packet in self.input.demux(stream):
            if packet.size == 0 or packet.dts is None or packet.time_base is None:
                continue  # the flush at the end
            packet.dts -= shift
            packet.pts = None if packet.pts is None else packet.pts - shift
            packet.stream = target
            yield packet.dts * packet.time_base, packet

    def _encoded(self, stream: av.AudioStream) -> Packets:
        source = stream.codec_context
        layout = "mono" if source.layout.nb_channels == 1 else "stereo"  # old formats have layouts without a name
        target = self.output.add_stream("aac", rate=source.sample_rate, layout=layout)
        return self._transcoded(stream, target)

    def _transcoded(self, stream: av.AudioStream, target: av.AudioStream) -> Packets:
        assert self.input is not None
        start = self._start()
        for frame in self.input.decode(stream):
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(start / frame.time_base)
            for packet in target.encode(frame):
                yield _begin(packet), packet
        for packet in target.encode(None):
            yield _begin(packet), packet


class GifSink:
    """GIF with the best 256 colours of each frame."""

    def __init__(self, path: Path, fps: Fraction, comment: str = "") -> None:
        self.path, self.comment = path, comment
        self.fps = fps
        self.count = 0
        self.graph: Graph | None = None
        self.output = av.open(f"file:{path}", "w", format="gif")
        self.video = self.output.add_stream("gif", rate=fps)

    def write(self, frame: np.ndarray) -> None:
        if self.graph is None:
            self._build(*frame.shape[:2])
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self.count, 1 / self.fps
        self._pass(picture)
        self.count += 1

    def finish(self) -> None:
        self._pass(None)
        self.output.mux(self.video.encode(None))
        self.output.close()
        if self.comment:
            _comment_gif(self.path, self.comment)

    def abort(self) -> None:
        with suppress(av.error.FFmpegError, OSError):  # the file is thrown away
            self.output.close()

    def _build(self, height: int, width: int) -> None:
        self.video.height, self.video.width, self.video.pix_fmt = height, width, "pal8"
        self.graph = graph = Graph()
        rgb = av.VideoFormat("rgb24")
        entry = graph.add_buffer(width=width, height=height, format=rgb, time_base=1 / self.fps)
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


def _comment_gif(path: Path, comment: str) -> None:
    """Puts a comment extension, at most 255 bytes, before the first picture of a GIF; FFmpeg writes none."""
    text = comment.encode("ascii", "replace")[:255]
    beside = path.with_name(f"{path.name}.comment")
    try:
        with path.open("rb") as plain, beside.open("wb") as marked:
            head = plain.read(GIF_HEAD)
            colours = 3 << (head[10] & 7) + 1 if head[10] & 0x80 else 0  # bytes of the palette of the whole file
            marked.write(head + plain.read(colours) + b"\x21\xfe" + bytes([len(text)]) + text + b"\x00")
            shutil.copyfileobj(plain, marked)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _begin(packet: av.Packet) -> Fraction:
    if packet.dts is None or packet.time_base is None:
        return Fraction(0)
    return packet.dts * packet.time_base
