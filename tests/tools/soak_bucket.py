"""`python tests/tools/soak_bucket.py --kills=20`: is a training on a bucket that is killed again and again the local one that was left alone?

As soak.py, but the workdir of the killed runs is `gs://...` on a server of this machine, behind a proxy that adds latency; kills "while a
checkpoint is written" come while it is uploaded. `--faults` also has the server fail for a while during each start.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import soak
from gcs_server import BUCKET, GcsServer, Proxy, emulated

SUMS = "/SHA256SUMS"


def half_written(names):
    """Steps of checkpoints without their last object."""
    steps = {name.split("/")[0] for name in names}
    return {step for step in steps if f"{step}{SUMS}" not in names}


def bucket_run(server, proxy):
    """A kind of `soak.Run` with its workdir on the server."""

    class BucketRun(soak.Run):
        def __init__(self, shards, folder, system, steps):
            super().__init__(shards, folder, system, steps)
            self.prefix = f"{folder.parent.name}/{folder.name}/"
            workdir = f"gs://{BUCKET}/{self.prefix}".rstrip("/")
            self.arguments += (workdir, emulated({}, proxy, folder / "cache"))

        def _half_written(self):
            return half_written(server.names(f"{self.prefix}checkpoints/"))

        def saving(self):
            # What the kill before left is swept before the first step of this start.
            time.sleep(0.02)
            return self.batches_taken() > 0 and bool(self._half_written())

        def finish(self):
            super().finish()
            for name in server.names(self.prefix):
                path = self.folder / "run" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(server.read(self.prefix + name))
            left = half_written(server.names(f"{self.prefix}checkpoints/"))
            assert not left, f"half of the checkpoints {left} was left in the bucket"

    return BucketRun


def disturbances(proxy, rng, stopped):
    """Until `stopped`, the server answers 503, drops connections or cuts answers off for seconds, again and again."""
    while not stopped.wait(rng.uniform(1, 4)):
        proxy.fail(rng.choice(["503", "drop", "cut"]))
        stopped.wait(rng.uniform(0.5, 3))
        proxy.fail(None)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=24, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--system", choices=["perturbed_masks", "small"], default="perturbed_masks")
    parser.add_argument("--latency", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--faults", action="store_true", help="the server also fails now and then")
    args = parser.parse_args()
    from tiny import tiny_config

    from input_pipeline.from_config import ensure_shards

    rng = random.Random(args.seed)
    others = [kind for kind in soak.KINDS if kind != "save"]
    kinds = ["save" if i % 2 else others[i // 2 % len(others)] for i in range(args.kills)]
    folder = Path(tempfile.mkdtemp(prefix="soak-bucket-"))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    shards = ensure_shards(tiny_config(folder / "shards"))
    stopped = threading.Event()
    with GcsServer() as server, Proxy(server, args.latency) as proxy:
        if args.faults:
            threading.Thread(target=disturbances, args=(proxy, rng, stopped), daemon=True).start()
        since = time.monotonic()
        try:
            make = bucket_run(server, proxy)
            runs, met = soak.soak(
                shards, folder, kinds, rng, args.system, args.steps, lambda line: print(line, flush=True), make
            )
        except (AssertionError, TimeoutError) as error:
            print(f"DIFFERENT (seed {args.seed}): {error}; the runs are kept in {folder}", flush=True)
            sys.exit(1)
        finally:
            stopped.set()
    shutil.rmtree(folder)
    print(
        f"{args.kills} kills ({dict(Counter(kinds))}) in {runs} runs, {time.monotonic() - since:.0f} s: nothing differs; "
        f"what they met: {dict(met)}"
    )


if __name__ == "__main__":
    main()
