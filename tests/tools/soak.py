"""`python tests/tools/soak.py --kills=50`: is a training that is killed again and again the training that was left alone, bit for bit?

A small real training (Perturbed Masks with tiny networks, or the small system) is killed at random moments: SIGKILL, some while a checkpoint
is written; SIGTERM; SIGTERM and SIGKILL before it is done with that. Then it is started again, until all kills are used up. Compared with an
undisturbed run: parameters, optimiser and statistics, every batch, the figures of the log, the pictures, the best checkpoint.
Exit status 1 at a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

KINDS = ("kill", "save", "term", "term, kill", "start")
"""SIGKILL; the same while a checkpoint is written; SIGTERM; SIGTERM and soon SIGKILL; SIGKILL before the first step."""
NOT_COMPARED = ("time", "steps_per_second", "data_wait_share")
PATIENCE = 1800  # seconds for one start on a busy machine
GRACE = 600
sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from forked import forkserver  # noqa: E402


def soak_config(shards, steps):
    """Logs every second step, saves every fourth, so that signals fall between both."""
    from tiny import tiny_config

    config = tiny_config(shards)
    config.optim.max_steps, config.train.log_every, config.train.checkpoint_every = steps, 2, 4
    config.train.image_every, config.train.num_eval_clips, config.train.eval_frames = 10, 1, 1
    config.loss.vgg_layers, config.num_cpu_devices, config.data.num_threads = ("relu1_1",), 1, 1
    return config


def child(shards, folder, system, steps, workdir=None, environment=()):
    """One start of the training; its batches go to `order.txt`, and when it is finished its state to `state.npz`."""
    os.environ.update(environment)
    workdir = workdir or folder / "run"
    os.nice(int(os.environ.get("SOAK_NICE", "0")))
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    import jax
    from small_system import SmallSystem

    from maskanim_jax.buckets.local_paths import opened
    from maskanim_jax.checkpoints.manager import CheckpointManager
    from maskanim_jax.distributed import setup
    from maskanim_jax.errors import run_main
    from maskanim_jax.training import experiment, loop

    config = soak_config(shards, steps)
    setup.configure_jax(config)
    if system == "small":
        experiment.build = lambda config: SmallSystem()
    original = loop.batches

    def recorded(setting, first):
        import hashlib

        with open(folder / "order.txt", "a", buffering=1) as order:
            for step, pair in enumerate(original(setting, first), first + 1):
                bits = b"".join(frames.tobytes() for frames in jax.device_get(pair))
                order.write(f"{step} {hashlib.sha256(bits).hexdigest()}\n")
                yield pair

    def main():
        loop.batches = recorded
        state = loop.train(config, workdir)
        leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
        np.savez(folder / "state.npz", **{name: np.asarray(leaf) for name, leaf in leaves.items()})
        with opened(workdir) as local, CheckpointManager(local, read_only=True) as checkpoints:
            (folder / "best.json").write_text(json.dumps([checkpoints.best_step(), checkpoints.latest_step()]))

    run_main(main)


class Run:
    """One training in `folder`, started as often as it takes."""

    def __init__(self, shards, folder, system, steps):
        self.arguments, self.folder = (shards, folder, system, steps), folder
        self.startup = 5.0
        """Seconds that the last start took to its first batch."""
        folder.mkdir()

    def start(self):
        self.stale = self._half_written()  # of the kill before: the new process has yet to sweep it
        self.process = forkserver.Process(target=child, args=self.arguments)
        self.process.start()
        self.since = time.monotonic()
        self.seen = self._size()

    def _size(self):
        order = self.folder / "order.txt"
        return order.stat().st_size if order.exists() else 0

    def until(self, condition):
        """Whether the condition came true before the process ended."""
        while not condition():
            if not self.process.is_alive():
                return False
            if time.monotonic() - self.since > PATIENCE:
                self.process.kill()
                raise TimeoutError(f"{self.folder}: a start took more than {PATIENCE} s; see output.txt there")
            time.sleep(0.002)
        return True

    def batches_taken(self):
        return (self._size() - self.seen) // 67

    def _half_written(self):
        """(Name, inode) of what isn't a whole checkpoint: a new save of the same step has the same name and another inode."""
        found = set()
        folder = self.folder / "run" / "checkpoints"
        for entry in os.scandir(folder) if folder.exists() else ():
            if ".part" in entry.name:
                found.add((entry.name, entry.inode()))
        return found

    def saving(self):
        """Whether this process, not one before it, is writing a checkpoint."""
        return bool(self._half_written() - self.stale)

    def disturb(self, kind, rng):
        """Starts, and kills by `kind`; returns what the kill met, None when the run came to its end before.

        Raises AssertionError for a wrong exit status.
        """
        self.start()
        steps, jitter = rng.randint(1, 7), rng.random()
        if kind == "start":
            self.until(lambda: self.batches_taken() >= 1 or time.monotonic() - self.since > jitter * self.startup)
        elif kind == "save":
            self.until(self.saving)
            time.sleep(jitter * 0.08)
        else:
            if self.until(lambda: self.batches_taken() >= 1):
                self.startup = time.monotonic() - self.since
            self.until(lambda: self.batches_taken() >= steps)
            time.sleep(jitter * 0.1)
        if kind.startswith("term"):
            self.process.terminate()
            if kind == "term, kill":
                self.process.join(jitter * 0.5)
        if kind != "term":
            self.process.kill()
        self.process.join(GRACE)
        status = self.process.exitcode
        allowed = {"term": (0, 75), "term, kill": (0, 75, -signal.SIGKILL)}.get(kind, (0, -signal.SIGKILL))
        assert status in allowed, f"{self.folder}: exit status {status} after {kind}; see output.txt there"
        if status == 0:
            return None
        if status == 75:
            return "saved and left with 75"
        if self.saving():
            return "a checkpoint was half written"
        return "no batch was taken yet" if self.batches_taken() == 0 else "between checkpoints"

    def finish(self):
        self.start()
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0, f"{self.folder}: exit status {self.process.exitcode}; see output.txt there"


def order_of(folder):
    """Step to the hash of its batch; raises AssertionError when a step had two different ones."""
    order = {}
    for line in (folder / "order.txt").read_text().splitlines():
        step, _, digest = line.partition(" ")
        if len(digest) == 64:  # a killed process may leave half a line
            assert order.setdefault(int(step), digest) == digest, f"the batch of step {step} was another one"
    return order


def figures_of(folder):
    """The log without sentences and clocks, in order."""
    records = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in record.items() if name not in NOT_COMPARED}
        for record in records
        if "text" not in record
    ]


def compare(one, other):
    """Raises AssertionError with what differs between two runs' folders."""
    a, b = np.load(one / "state.npz"), np.load(other / "state.npz")
    assert a.files == b.files
    differ = [name for name in a.files if a[name].tobytes() != b[name].tobytes()]
    assert not differ, f"the state differs: {differ[:5]}"
    assert order_of(one) == order_of(other), "other batches"
    for first, second in zip(figures_of(one), figures_of(other), strict=True):
        assert first == second, f"the log differs: {first} and {second}"
    pictures = [
        {path.name: path.read_bytes() for path in (each / "run" / "pictures").iterdir()} for each in (one, other)
    ]
    assert pictures[0] == pictures[1], "other pictures"
    assert (one / "best.json").read_text() == (other / "best.json").read_text(), "another best or last checkpoint"
    for path in [*(other / "run").iterdir(), *(other / "run" / "checkpoints").iterdir()]:
        assert not path.name.endswith((".part", ".old")), f"{path} was left behind"
        assert "orbax" not in path.name, f"{path} was left behind"


def soak(shards, folder, kinds, rng, system="perturbed_masks", steps=40, say=print, make=Run):
    """Kills runs in the ways of `kinds`, one after the other, and compares each with a whole one. Raises AssertionError at a difference."""
    whole = Run(shards, folder / "whole", system, steps)
    began = time.monotonic()
    whole.finish()
    say(f"an undisturbed run of {steps} steps: {time.monotonic() - began:.0f} s")
    left, runs, met = list(kinds), 0, Counter()
    while left:
        runs += 1
        run, finished = make(shards, folder / f"run{runs}", system, steps), False
        while left and not finished:
            found = run.disturb(left[0], rng)
            finished = found is None
            if not finished:  # else nothing was killed
                met[found] += 1
                say(
                    f"{met.total()} of {len(kinds)}: {left.pop(0)}: {found}; run {runs}, {time.monotonic() - began:.0f} s"
                )
        if not finished:
            run.finish()
        compare(whole.folder, run.folder)
        say(f"run {runs} equals the undisturbed one")
    return runs, met


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, default=40, help="of each run")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the moments; they depend on the machine's speed as well"
    )
    parser.add_argument("--system", choices=["perturbed_masks", "small"], default="perturbed_masks")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--shards", type=Path, help="of 32-pixel frames; drawn without it")
    args = parser.parse_args()
    from tiny import tiny_config

    from input_pipeline.from_config import ensure_shards

    rng = random.Random(args.seed)
    kinds = [args.kinds[i % len(args.kinds)] for i in range(args.kills)]
    rng.shuffle(kinds)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    shards = args.shards or ensure_shards(tiny_config(folder / "shards"))
    try:
        runs, met = soak(shards, folder, kinds, rng, args.system, args.steps, say=lambda line: print(line, flush=True))
    except (AssertionError, TimeoutError) as error:
        print(f"DIFFERENT (seed {args.seed}): {error}; the runs are kept in {folder}", flush=True)
        sys.exit(1)
    shutil.rmtree(folder)
    print(f"{args.kills} kills ({dict(Counter(kinds))}) in {runs} runs: nothing differs; what they met: {dict(met)}")


if __name__ == "__main__":
    main()
