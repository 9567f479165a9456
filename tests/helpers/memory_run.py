"""`python tests/helpers/memory_run.py animate|prepare SHORT LONG`: peaks of memory (MB) after a clip of SHORT frames and then one of LONG frames.

The clips are 128 x 128 with a tone; one decoded frame is 49 kB. Animation is the whole of a result (decoding, a system, encoding, sound) with
the system of test_animate.py, which costs next to nothing; preparation is the whole command. Prints JSON: [before, after SHORT, after LONG].
"""

import contextlib
import json
import resource
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

SIDE, RATE = 128, 25


def peak():
    """The highest resident memory of this process so far, MB. Linux' `ru_maxrss` would have that of the process that started it in it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def write_clip(path, frames):
    """A soft pattern that wanders, in H.264, and a tone as long."""
    y, x = np.mgrid[:SIDE, :SIDE]
    wave = (127 + 100 * np.sin(x / 9) * np.cos(y / 7)).astype(np.uint8)
    ring = [np.stack([np.roll(wave, 3 * i, axis=i % 2)] * 3, axis=-1) for i in range(40)]
    tone = (8000 * np.sin(np.arange(48000 // RATE) * 0.06)).astype(np.int16)[None]
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "35"})
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        sound = output.add_stream("aac", rate=48000, layout="mono")
        for index in range(frames):
            output.mux(video.encode(av.VideoFrame.from_ndarray(ring[index % 40])))
            heard = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
            heard.sample_rate, heard.pts = 48000, index * tone.shape[1]
            output.mux(sound.encode(heard))
        output.mux(video.encode(None))
        output.mux(sound.encode(None))


def animated(folder, clip, frames):
    """Animates by a clip with the cheapest of systems; returns the number of frames written."""
    from types import SimpleNamespace

    from echo_system import ONE, Echo

    from maskanim_jax.animation.jobs import Job, render
    from maskanim_jax.video.reader import open_frames

    run = SimpleNamespace(system=Echo(), variables=ONE, step=0)
    output = folder / f"result-{frames}.mp4"
    render(run, Job(clip, clip, str(output), None), (), batch=8, fit="crop")
    with open_frames(output) as written:
        return written.count


def prepared(folder, clip, frames):
    """Prepares a folder that has the clip alone; returns the number of frames stored."""
    from input_pipeline.prepare import prepare

    root = folder / f"root-{frames}"
    (root / "train").mkdir(parents=True)
    clip.rename(root / "train" / clip.name)
    return prepare(root, folder / f"shards-{frames}", size=64, progress=False)["splits"]["train"]["frames"]


def main():
    what, lengths = sys.argv[1], [int(number) for number in sys.argv[2:4]]
    with tempfile.TemporaryDirectory() as name:
        folder, peaks = Path(name), []
        clips = [folder / f"{frames}.mp4" for frames in lengths]
        for clip, frames in zip(clips, lengths, strict=True):
            write_clip(clip, frames)
        peaks.append(peak())
        for clip, frames in zip(clips, lengths, strict=True):
            found = {"animate": animated, "prepare": prepared}[what](folder, clip, frames)
            assert found == frames, (found, frames)
            peaks.append(peak())
    print(json.dumps([round(each, 1) for each in peaks]))


if __name__ == "__main__":
    main()
