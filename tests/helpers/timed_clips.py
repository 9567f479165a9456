"""Videos whose frames come at given times, with clicks to hear; and when a video shows its frames and clicks."""

from fractions import Fraction

import av
import numpy as np

MS = Fraction(1, 1000)


def timed(
    path, ticks, base=MS, codec="libx264", last=None, rate=25, sound=None, options=None, sound_at=0, rate_of_sound=48000
):
    """A video whose frame i, of grey level 8 i + 8, is shown at ticks[i] of `base` seconds; `last`: ticks that the last is shown.

    `sound`: a codec; clicks at 0.2 and 0.7 s, in a stream that begins at `sound_at` seconds and lasts one.
    """
    with av.open(str(path), "w", options=options or {}) as output:
        video = output.add_stream(codec, rate=rate, options={"bf": "0"} if codec == "libx264" else {})
        video.height = video.width = 32
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = base
        tone = output.add_stream(sound, rate=rate_of_sound, layout="mono") if sound else None
        waiting = []
        for number, tick in enumerate(ticks):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 8 * (number % 30) + 8, np.uint8), format="rgb24")
            picture.pts, picture.time_base = tick, base
            waiting += video.encode(picture)
        waiting += video.encode(None)
        if last:
            waiting[-1].duration = round(last * base / waiting[-1].time_base)
        if tone:
            output.mux(waiting[0])
            waiting = waiting[1:]
            for frame in clicking(rate_of_sound, sound_at):
                output.mux(tone.encode(frame))
            output.mux(tone.encode(None))
        output.mux(waiting)
    return path


def clicking(rate, begin, seconds=1):
    samples = np.zeros(rate * seconds, np.int16)
    for at in (0.2, 0.7):
        samples[round(at * rate) : round((at + 0.01) * rate)] = 20000
    for offset in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, offset : offset + 1024], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = offset + round(begin * rate)
        yield frame


def times(path):
    """The seconds at which frames are shown, and when the last one ends."""
    with av.open(str(path)) as container:
        shown = [(frame.pts * frame.time_base, frame.duration * frame.time_base) for frame in container.decode(video=0)]
    return [start for start, _ in shown], shown[-1][0] + shown[-1][1]


def clicks(path):
    """The seconds at which clicks begin."""
    found, last = [], -1.0
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=48000)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                for sample in np.nonzero(np.abs(part.to_ndarray()[0]) > 0.1)[0]:
                    at = float(part.time + sample / 48000)
                    if at - last > 0.2:
                        found.append(at)
                    last = at
    return found
