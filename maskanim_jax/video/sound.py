"""How is the driving video's sound added to the result?

It is copied if players support it, otherwise encoded as AAC.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.codeccontext import AudioCodecContext
from av.filter import Graph

from maskanim_jax.errors import UserError
from maskanim_jax.video.images import one_line
from maskanim_jax.video.integrity import READ_ONLY_THIS_FILE

COPIED = {
    "mp4": {"aac", "mp3", "opus", "flac"},
    "mov": {"aac", "mp3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_f32le"},
}
"""Codecs, by container, whose packets are copied: the container supports them, and
common players play them.
"""
AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Sample rates for AAC; the encoder supports a few more, but phones do not play them.
"""
LOWEST_MP3_RATE = 16000
"""The lowest sample rate of copied MP3; lower ones are not in the MPEG-4
standard, and muxers refuse them.
"""
LIP_SYNC = Fraction(1, 50)
"""At most this many seconds of sound before the first frame are dropped rather
than delaying the video.
"""
_PREROLL = Fraction(1, 10)
"""Seconds of packets before the first audible one that decoders may need."""
_SET_BACK = Fraction(1)

Packets = Iterator[tuple[Fraction, av.Packet]]
"""Packets with their start times, in seconds of the result."""


class Sound:
    """Muxes the first audio stream of a file into `output`, part by part. A file
    without sound adds none.

    `container` is mp4 or mov. Call `begin` before the first packet is muxed.
    """

    def __init__(self, path: Path, output: av.container.OutputContainer, container: str) -> None:
        self.path, self.output = path, output
        self.input: av.container.InputContainer | None = None
        self.stream: av.AudioStream | None = None
        self.waiting: tuple[Fraction, av.Packet] | None = None
        if path.is_dir():
            return
        try:
            self.input = av.open(f"file:{path}", options=READ_ONLY_THIS_FILE)
        except (av.error.FFmpegError, OSError):
            return  # the driver may be an image; the reader reports unreadable files
        streams = [stream for stream in self.input.streams.audio if stream.codec_context is not None]
        best = self.input.streams.best("audio")
        if not streams:
            return
        # Phones write several streams, and not all can be decoded.
        self.stream = best if best in streams else streams[0]
        context = self.stream.codec_context
        codec = context.codec.canonical_name
        self.copied = codec in COPIED[container] and (codec != "mp3" or context.sample_rate >= LOWEST_MP3_RATE)
        try:
            if self.copied:
                self.target = output.add_stream_from_template(self.stream)
            else:
                rate = next((rate for rate in AAC_RATES if rate >= context.sample_rate), AAC_RATES[-1])
                layout = "mono" if context.layout.nb_channels == 1 else "stereo"
                self.target = output.add_stream("aac", rate=rate, layout=layout)
        except (av.error.FFmpegError, ValueError) as error:
            raise self._unusable(error) from error
        self.packets: Packets = iter(())

    def begin(self, origin: Fraction | None) -> Fraction:
        """Starts the sound of a video whose first frame is shown at `origin` (seconds on the file's
        clock; None: as in the container).

        Returns the second of the result at which the picture starts, so that earlier sound is kept.
        It is 0 unless the sound starts clearly earlier.
        """
        if self.input is None or self.stream is None:
            return Fraction(0)
        if origin is None:
            videos = self.input.streams.video
            origin = _start(videos[0]) if videos else None
        sound = _start(self.stream)
        origin = origin if origin is not None else Fraction(0)
        lead = origin - sound if sound is not None and origin - sound > LIP_SYNC else Fraction(0)
        zero = origin - lead
        self.packets = self._copy(zero) if self.copied else self._encode(zero)
        return lead

    def mux_until(self, time: Fraction | None) -> None:
        """Muxes the packets that start before `time` (seconds of the result); with
        None, all remaining ones.
        """
        if self.stream is None:
            return
        while True:
            try:
                self.waiting = self.waiting or next(self.packets, None)
            except (av.error.InvalidDataError, av.error.ArgumentError) as error:
                raise UserError(f"{self.path} has corrupt sound; save it again without its sound") from error
            if self.waiting is None or (time is not None and self.waiting[0] >= time):
                return
            try:
                self.output.mux(self.waiting[1])
            except (av.error.InvalidDataError, av.error.ArgumentError, ValueError) as error:
                raise self._unusable(error) from error
            self.waiting = None

    def close(self) -> None:
        """Closes the file with the sound."""
        if self.input is not None:
            self.input.close()

    def _unusable(self, error: Exception) -> UserError:
        codec = self.stream.codec_context.name if self.stream is not None else "unknown"
        return UserError(
            f"the sound of {self.path} ({codec}) cannot be written ({one_line(error)}); save the video again without its sound"
        )

    def _copy(self, zero: Fraction) -> Packets:
        assert self.input is not None
        assert self.stream is not None
        base = self.stream.time_base or Fraction(1, 1000)
        shift, last = round(zero / base), None
        for packet in self.input.demux(self.stream):
            if packet.size == 0 or packet.dts is None or packet.time_base is None:
                continue  # the decoder's flush at the end
            at = packet.dts - shift
            if (at + (packet.duration or 0)) * base <= -_PREROLL:
                continue
            if last is not None and at <= last:
                if (last - at) * base < _SET_BACK:
                    continue  # already played
                shift -= last + 1 - at  # timestamps jump back, as in concatenated recordings
                at = last + 1
            packet.pts = at if packet.pts is None else packet.pts - packet.dts + at
            packet.dts = last = at
            packet.stream = self.target
            yield at * base, packet

    def _encode(self, zero: Fraction) -> Packets:
        """Encodes AAC that follows the timestamps: `aresample` fills gaps with silence
        and drops what is before 0.
        """
        assert self.input is not None
        assert self.stream is not None
        target: AudioCodecContext = self.target.codec_context
        for frame in self._resampled(zero, target):
            for packet in self.target.encode(frame):
                yield _begin(packet), packet

    def _resampled(self, zero: Fraction, target: AudioCodecContext) -> Iterator[av.AudioFrame | None]:
        assert self.input is not None
        assert self.stream is not None
        graph: Graph | None = None
        like: tuple[object, ...] = ()
        for frame in self.input.decode(self.stream):
            assert isinstance(frame, av.AudioFrame)
            described = (frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate)
            if described != like:  # the format changes within some files
                if graph is not None:
                    yield from _pulled(graph, None)
                graph = _aresample(frame, target, first=not like)
                like = described
            if frame.pts is not None and frame.time_base is not None:
                frame.pts -= round(zero / frame.time_base)
            assert graph is not None
            yield from _pulled(graph, frame)
        if graph is not None:
            yield from _pulled(graph, None)
        yield None


def _aresample(frame: av.AudioFrame, target: AudioCodecContext, first: bool) -> Graph:
    graph = Graph()
    entry = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format, layout=frame.layout, time_base=frame.time_base
    )
    at_zero = ":first_pts=0" if first else ""
    resample = graph.add("aresample", f"{target.sample_rate}:async=1000:min_hard_comp=0.025{at_zero}")
    form = graph.add(
        "aformat",
        f"sample_fmts={target.format.name}:sample_rates={target.sample_rate}:channel_layouts={target.layout.name}",
    )
    entry.link_to(resample)
    resample.link_to(form)
    form.link_to(graph.add("abuffersink"))
    graph.configure()
    return graph


def _pulled(graph: Graph, frame: av.AudioFrame | None) -> Iterator[av.AudioFrame]:
    graph.push(frame)
    while True:
        try:
            pulled = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(pulled, av.AudioFrame)
        yield pulled


def _start(stream: av.AudioStream | av.VideoStream) -> Fraction | None:
    if stream.start_time is None or stream.time_base is None:
        return None
    return stream.start_time * stream.time_base


def _begin(packet: av.Packet) -> Fraction:
    if packet.dts is None or packet.time_base is None:
        return Fraction(0)
    return packet.dts * packet.time_base
