"""Which timestamps does a video file declare? All packets are read, but none is decoded."""

from __future__ import annotations

from fractions import Fraction

import av
import av.error

from maskanim_jax.video.integrity import declared_seconds
from maskanim_jax.video.timing import Timing, believed, from_ticks

UNSTATED_FPS = Fraction(25)
"""Frames per second of files without a rate or timestamps."""
_SET_BACK_S = 1
_NO_DURATION = Fraction(2, 1000)
"""Seconds; some programs write it for an unknown duration."""


def measure(container: av.container.InputContainer, stream: av.VideoStream) -> Timing:
    """The timing of the stream's frames.

    Damage is not reported here: the reader finds it while decoding.
    """
    base = stream.time_base or Fraction(1, 1000)
    shown: dict[int, int] = {}
    shift, latest = 0, None
    vp8 = stream.codec_context.name in ("vp8", "libvpx")
    try:
        for packet in container.demux(stream):
            at = packet.dts if packet.pts is None else packet.pts
            if not packet.size or at is None or packet.is_discard or (vp8 and not bytes(packet)[0] & 0x10):
                continue  # the final flush, frames that an edit list hides, and VP8's reference frames
            if latest is not None and (latest - at - shift) * base > _SET_BACK_S:
                shift = latest - at  # timestamps jump back, as in concatenated recordings
            at += shift
            latest = at if latest is None else max(latest, at)
            shown[at] = packet.duration or 0
    except av.error.FFmpegError:
        pass
    ticks = sorted(shown)
    stated = [
        Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate and believed(Fraction(rate))
    ]
    if ticks:
        last = shown[ticks[-1]] * base
        if not stream.average_rate or last <= _NO_DURATION:  # FFmpeg invents durations for files without a rate
            last = Fraction(0)
        declared = declared_seconds(container, stream)
        ends = Fraction(declared).limit_denominator(1_000_000) if declared else None
        if timing := from_ticks(ticks, base, last, stated, ends):
            return timing
        if len(ticks) == 1 and last and believed(1 / last):
            return Timing.at_rate(1 / last)
    if not stream.average_rate and stated and stated[0] >= 1 / base:
        stated = []  # the clock's rate, since there is no better one
    return Timing.at_rate(next(iter(stated), UNSTATED_FPS))
