"""Does preparation need more memory for longer clips?

`python benchmarks/prepare_memory.py` writes videos of 1,000 and 10,000 noisy moving frames of 256 x
256 and prepares each in its own process. It prints each process's peak resident memory, its memory
before any frame was read, and the ratio of the two peaks, which is near 1 if frames are streamed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from maskanim_jax.errors import UserError, run_main  # noqa: E402

SIDE = 256
REPEATED = 250  # frames
PROGRAM = """
import json, resource, sys, time
from pathlib import Path
import tensorflow_datasets, av, PIL.Image
from input_pipeline.preparation.shard_writer import encoder, features
from input_pipeline.prepare import prepare
features(256, "jpeg").get_serialized_info()
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
before, start = peak(), time.perf_counter()
report = prepare(Path(sys.argv[1]), Path(sys.argv[2]), size=int(sys.argv[3]), progress=False)
print(json.dumps([before, peak(), time.perf_counter() - start, report["splits"]["train"]["frames"]]))
"""


def write_clip(path: Path, frames: int) -> None:
    """Writes a video of a window that moves over a noisy picture.

    It is encoded once and repeated, packet by packet, up to `count` frames.
    """
    path.parent.mkdir(parents=True)
    once = path.parent.parent / "once.mp4"
    length = min(frames, REPEATED)
    rng = np.random.default_rng(0)
    field = rng.integers(0, 255, (SIDE * 2, SIDE * 2, 3), dtype=np.uint8)
    with av.open(str(once), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "32"})
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        for index in tqdm(range(length), desc=path.stem, unit="frame"):
            x, y = (int(SIDE / 2 * (1 + np.sin(index / period))) for period in (37, 53))
            window = np.ascontiguousarray(field[y : y + SIDE, x : x + SIDE])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(window)))
        container.mux(stream.encode())
    with av.open(str(path), "w") as container:
        output = None
        for repeat in range(frames // length):
            with av.open(str(once)) as source:
                stream = source.streams.video[0]
                output = output or container.add_stream_from_template(stream)
                shift = repeat * round(length / 25 / stream.time_base)
                for packet in source.demux(stream):
                    if packet.dts is not None:
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, output
                        container.mux(packet)


def main() -> int:
    """Prints a Markdown table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument(
        "--frames", type=int, nargs=2, default=(1000, 10_000), help="lengths to compare (multiples of 250)"
    )
    flags.add_argument("--size", type=int, default=SIDE, help="side of the stored frames")
    args = flags.parse_args()
    if min(args.frames) < 2:
        raise UserError("--frames needs at least two lengths")
    peaks = []
    print("| frames of the clip | MB before | peak MB | s |\n| --- | --- | --- | --- |")
    for frames in args.frames:
        with tempfile.TemporaryDirectory() as folder:
            write_clip(Path(folder) / f"root/train/{frames}.mp4", frames)
            command = [sys.executable, "-c", PROGRAM, f"{folder}/root", f"{folder}/shards", str(args.size)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        before, peak, seconds, stored = json.loads(done.stdout.splitlines()[-1])
        print(f"| {stored} | {before:.0f} | {peak:.0f} | {seconds:.0f} |", flush=True)
        peaks.append(peak)
    print(f"\npeak of {args.frames[1]} frames / peak of {args.frames[0]} frames: {peaks[1] / peaks[0]:.2f}")
    return 0


if __name__ == "__main__":
    run_main(main)
