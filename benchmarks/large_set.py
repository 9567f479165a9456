"""Is reading as fast for a large data set as for a small one?

`python benchmarks/large_set.py` writes sets of 20,000 and of 200 tiny clips. Each set is
opened in its own process, which measures the seconds until the stream is ready
(imports included), the seconds from there to the first batch, and resident memory after 51
batches. On a busy machine, look at the CPU seconds. Then one process reads pairs of both sets
alternately, for the ratio of CPU seconds per pair.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from maskanim_jax.errors import UserError, run_main

SIDE, FRAMES, BATCH = 16, 4, 16


def write(folder, clips, workers):
    """Writes one PNG with frames side by side per clip, four clips per identity,
    and then shards of them.
    """
    from input_pipeline.prepare import prepare

    rng = np.random.default_rng(0)
    (folder / "root/train").mkdir(parents=True)
    for number in tqdm(range(clips), desc=f"{clips} clips", unit="clip"):
        frames = rng.integers(0, 255, (SIDE, SIDE * FRAMES, 3), np.uint8)
        Image.fromarray(frames).save(folder / "root/train" / f"id{number // 4:05}#{number:05}.png", compress_level=1)
    prepare(folder / "root", folder / "shards", size=SIDE, workers=workers)
    return folder / "shards"


def opened(shards, threads):
    """A stream of pairs from the set."""
    from input_pipeline.pairs import PairStream
    from input_pipeline.shards import open_split

    return PairStream(open_split(shards, "train"), batch_size=BATCH, seed=0, repeats=75, threads=threads)


def resident():
    """Resident memory of this process in MB, shared pages included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise UserError("/proc/self/status has no VmRSS; run this on Linux")


def alone(shards, started):
    """Runs in its own process, which started at `started` of the monotonic clock, and prints the
    cost of opening the set as JSON.
    """
    stream = opened(shards, threads=2)
    ready, ready_cpu = time.monotonic(), time.process_time()
    batches = stream.batches()
    next(batches)
    first, first_cpu = time.monotonic(), time.process_time()
    for _ in range(50):
        next(batches)
    batches.close()
    cost = {"start": ready - started, "first": first - ready, "memory": resident()}
    print(json.dumps(cost | {"start_cpu": ready_cpu, "first_cpu": first_cpu - ready_cpu}))


def main(argv=None):
    """Prints the measurements of both sets and the ratio of the costs per pair."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--clips", type=int, default=20_000, help="clips of the large set")
    flags.add_argument("--few", type=int, default=200, help="clips of the small set")
    flags.add_argument(
        "--rounds", type=int, default=9, help="alternations between the sets; the median ratio is printed"
    )
    flags.add_argument("--workers", type=int, default=2, help="processes that prepare the sets")
    flags.add_argument("--alone", type=Path, help=argparse.SUPPRESS)
    flags.add_argument("started", nargs="?", type=float, help=argparse.SUPPRESS)
    args = flags.parse_args(argv)
    if args.alone:
        alone(args.alone, args.started)
        return 0
    with tempfile.TemporaryDirectory() as name:
        sets = {count: write(Path(name) / str(count), count, args.workers) for count in (args.clips, args.few)}
        for count, shards in sets.items():
            # The clock is shared by all processes.
            command = [sys.executable, __file__, "--alone", str(shards), str(time.monotonic())]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise UserError(f"{shards} could not be read: {done.stderr.strip().splitlines()[-1]}")
            cost = json.loads(done.stdout)
            print(
                f"{count:6} clips: {cost['start']:.2f} s to the stream ({cost['start_cpu']:.2f} of CPU), "
                f"{cost['first']:.2f} s to the first batch ({cost['first_cpu']:.2f} of CPU), "
                f"{cost['memory']:.0f} MB resident after 51 batches"
            )
        streams = {count: opened(shards, threads=0).batches() for count, shards in sets.items()}
        spent = {count: [] for count in sets}
        for turn in tqdm(range(args.rounds + 1), desc="rounds", unit="round"):
            for count, batches in streams.items():
                began = time.process_time()
                for _ in range(100):
                    next(batches)
                if turn:  # the first read opens the shards
                    spent[count].append((time.process_time() - began) / (100 * BATCH))
        for batches in streams.values():
            batches.close()
    for count, seconds in spent.items():
        print(f"{count:6} clips: {1e6 * statistics.median(seconds):.0f} us of CPU per pair of {SIDE} x {SIDE} frames")
    ratios = [many / few for many, few in zip(spent[args.clips], spent[args.few], strict=True)]
    print(
        f"a pair of {args.clips} clips costs {statistics.median(ratios):.2f} times as much as one of {args.few}",
        end=" ",
    )
    print(f"({min(ratios):.2f} to {max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    run_main(main)
