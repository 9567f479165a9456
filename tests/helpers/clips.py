"""Which clips do the tests read? Smooth moving colours, written by the project's writer or by PyAV alone."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from maskanim_jax.video.writer import VideoWriter


def clip(count, height=48, width=64, seed=0):
    """Smooth moving colours: H.264 keeps them nearly exact."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / 17 + i / 5 + seed) * np.cos(y / 13 + c) for i in range(count) for c in range(3)]
    return np.stack(waves).reshape(count, 3, height, width).transpose(0, 2, 3, 1).astype(np.uint8)


def save(path, frames, fps=Fraction(25), audio_from=None):
    with VideoWriter(path, fps, audio_from) as writer:
        for frame in frames:
            writer.write(frame)
    return Path(path)


def save_raw(path, codec, frames, rate=25, sound=None, rotation=0, aspect=None, options=None):
    """A video by PyAV alone, with a tone of 2 seconds if `sound` names a codec; frames of 4 channels keep their alpha."""
    with av.open(str(path), "w", options=options or {}) as output:
        video = output.add_stream(codec, rate=rate)
        video.height, video.width, channels = frames[0].shape
        video.pix_fmt = "rgb8" if codec == "gif" else "yuva420p" if channels == 4 else "yuv420p"
        if aspect:
            video.sample_aspect_ratio = aspect
        if channels == 4:
            video.options = {"auto-alt-ref": "0"}  # VP8 can't have both
        if rotation:
            video.set_display_rotation(rotation)
        tone = output.add_stream(sound, rate=48000, layout="mono") if sound else None
        for frame in frames:
            output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgba" if channels == 4 else "rgb24")))
        output.mux(video.encode(None))
        if tone:
            samples = (8000 * np.sin(np.arange(96000) * 0.06)).astype(np.int16)[None]
            wave = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            wave.sample_rate, wave.pts = 48000, 0
            output.mux(tone.encode(wave))
            output.mux(tone.encode(None))
    return path
