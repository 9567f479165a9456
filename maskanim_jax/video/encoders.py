"""How are frames encoded as video? As H.264 in mp4 or mov, with exact timestamps and sound.

FFmpeg encodes frame by frame, in bounded memory.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np

from maskanim_jax.video.sound import Sound
from maskanim_jax.video.timing import FINEST_BASE, Timing

CRF = "17"  # x264's constant quality; visually lossless
BT601 = 6  # AVCOL_SPC_SMPTE170M: players assume it for small frames; stated explicitly
LIMITED_RANGE = 1


class H264Sink:
    """H.264 in yuv420p; an odd side becomes even by repeating the last row or column.

    Variable frame rates are written without B-frames, so that the container stores
    every frame's duration, including the last. With `cut`, the sound ends with the
    picture, not with its own file.
    """

    note = ""

    def __init__(
        self,
        path: Path,
        timing: Timing,
        container: str,
        audio_from: Path | None,
        comment: str = "",
        cut: bool = False,
    ) -> None:
        self.timing, self.cut = timing, cut
        self.count = 0
        self.base, self.lead = timing.base, Fraction(0)
        self.waiting: list[av.Packet] = []
        self.output = av.open(f"file:{path}", "w", format=container, options={"movflags": "+faststart"})
        if comment:
            self.output.metadata["comment"] = comment
        self.sound: Sound | None = None
        try:
            options = {"crf": CRF} if timing.constant else {"crf": CRF, "bf": "0"}
            self.video = self.output.add_stream("libx264", rate=timing.rate, options=options)
            self.sound = Sound(audio_from, self.output, container) if audio_from is not None else None
        except BaseException:
            self.abort()
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
        start = self._seconds(self.timing.start(self.count))
        picture.pts, picture.time_base = round(start / self.base), self.base
        self._mux(self.video.encode(picture))
        self.count += 1
        if self.sound is not None:
            self.sound.mux_until(start + 1 / self.timing.rate)

    def finish(self) -> None:
        self._mux(self.video.encode(None))
        if not self.timing.constant:
            shown = self.timing.stop(self.count) - self.timing.start(self.count - 1)
            for packet in self.waiting:
                packet.duration = max(1, round(self.timing.seconds(shown) / packet.time_base))
        self.output.mux(self.waiting)
        if self.sound is not None:
            self.sound.mux_until(self._seconds(self.timing.stop(self.count)) if self.cut else None)
        self.output.close()
        self._close_sound()

    def abort(self) -> None:
        with suppress(av.error.FFmpegError, OSError):  # the file is discarded
            self.output.close()
        self._close_sound()

    def _seconds(self, tick: int) -> Fraction:
        return self.lead + self.timing.seconds(tick)

    def _mux(self, packets: list[av.Packet]) -> None:
        """Holds back the last packet, since the last frame's duration is only known at the end."""
        self.waiting += packets
        self.output.mux(self.waiting[:-1])
        self.waiting = self.waiting[-1:]

    def _describe(self, height: int, width: int) -> None:
        if self.sound is not None:
            self.lead = self.sound.begin(self.timing.origin)
        if self.lead:  # a frame is a whole number of ticks, which are also fine enough for the start
            self.base /= max(1, -(-self.base // FINEST_BASE))
        self.video.height, self.video.width, self.video.pix_fmt = height, width, "yuv420p"
        context = self.video.codec_context
        context.time_base = self.base
        context.colorspace = context.color_primaries = context.color_trc = BT601
        context.color_range = LIMITED_RANGE

    def _close_sound(self) -> None:
        if self.sound is not None:
            self.sound.close()
