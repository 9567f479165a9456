"""How much of a step is spent waiting for data?

`python benchmarks/data_wait.py [--shards=SHARDS]` trains the small Perturbed Masks model at 64 x 64
in the real loop (`maskanim_jax.training.loop.train_step`) at batch 16, on newly drawn puppets or on
prepared shards. One run alternates between the prefetch thread and loading each batch when it is
needed. The speed of the reader alone is measured, too: batches per second divided by steps per
second is how many times faster a device may be before it waits for data.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import sys
import tempfile
import time
from pathlib import Path

import jax
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from configs import puppets  # noqa: E402
from input_pipeline.from_config import ensure_shards  # noqa: E402
from maskanim_jax.distributed import setup  # noqa: E402
from maskanim_jax.errors import UserError, run_main  # noqa: E402
from maskanim_jax.systems.train_state import init_on_mesh  # noqa: E402
from maskanim_jax.training import experiment, loop  # noqa: E402
from maskanim_jax.training.metric_window import MetricAccumulator  # noqa: E402
from maskanim_jax.training.step import make_train_step  # noqa: E402


def shares(setting, rounds, steps):
    """Shares of waiting and steps per second with and without prefetching, measured
    alternately; a list of each.
    """
    system, an_epoch, config = setting.system, setting.stream.steps_per_epoch, setting.config
    state = init_on_mesh(system, config.seed, an_epoch, setting.mesh)
    run, window = make_train_step(system, config.seed, an_epoch, setting.mesh), MetricAccumulator(system, an_epoch)
    found = {depth: [] for depth in (config.data.prefetch, 0)}
    for number, depth in tqdm(list(itertools.product(range(rounds), found)), desc="rounds", unit="round"):
        config.data.prefetch = depth
        with contextlib.closing(experiment.batches(setting, number * steps)) as pairs:
            # Fills the read-ahead buffers.
            state = jax.block_until_ready(loop.train_step(run, state, setting.frozen, pairs, window))
            window.reset()
            for _ in range(steps):
                state = loop.train_step(run, state, setting.frozen, pairs, window)
            figures = window.flush(1)
        found[depth].append((figures["data_wait_share"], figures["steps_per_second"]))
    return found


def reading_speed(stream, batches):
    """Batches per second of the reader while nothing else computes."""
    with contextlib.closing(stream.batches()) as read:
        next(read)
        since = time.perf_counter()
        for _ in range(batches):
            next(read)
        return batches / (time.perf_counter() - since)


@contextlib.contextmanager
def on_a_bucket(shards, latency, cache):
    """The address of a copy of the shards on a local server that answers with a delay."""
    from tests.helpers.gcs_server import BUCKET, GcsServer, Proxy, emulated

    with GcsServer() as server, Proxy(server, latency) as proxy:
        server.put_folder(shards, "shards")
        os.environ.update(emulated({}, proxy, cache))
        yield f"gs://{BUCKET}/shards"


def first_epoch(setting, since):
    """Prints how long the download of the shards took, and when the first batch was ready."""
    from input_pipeline.shard_cache import fetching

    cache = fetching(setting.held_out.shards)
    with contextlib.closing(setting.stream.batches()) as read:
        next(read)
    first = time.perf_counter() - since
    cache.wait_for_all()
    size = sum(path.stat().st_size for path in cache.folder.glob("*array_record*"))
    print(
        f"{size / 1e6:.1f} MB of shards from {cache.address}: the first batch after {first:.2f} s, "
        f"all after {time.perf_counter() - since:.2f} s"
    )


def main(argv=None):
    """Prints the shares."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--shards", default="", help="prepared shards of 64 x 64 frames (default: puppets are drawn)")
    flags.add_argument(
        "--latency",
        type=float,
        help="read the shards from a bucket on a local server that delays each answer by this many seconds",
    )
    flags.add_argument("--batch", type=int, default=16, help="batch size (default 16)")
    flags.add_argument("--steps", type=int, default=10, help="steps per round (default 10)")
    flags.add_argument("--rounds", type=int, default=3, help="rounds with and without prefetching (default 3)")
    given = flags.parse_args(argv)
    if min(given.batch, given.steps, given.rounds) < 1:
        raise UserError("--batch, --steps and --rounds must be at least 1")
    config = puppets.get_config()
    config.batch_size, config.loss.vgg = given.batch, "untrained"
    config.data.puppets.train_identities, config.data.puppets.test_identities = 12, 2
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        config.data.shards = given.shards or str(Path(folder) / "puppets")
        config.data.num_repeats = 1000  # long enough that the epoch does not end
        setup.configure_jax(config)
        shards = ensure_shards(config)
        if given.latency is not None:
            config.data.shards = stack.enter_context(on_a_bucket(shards, given.latency, Path(folder) / "cache"))
        since = time.perf_counter()
        setting = experiment.build_experiment(config)
        if given.latency is not None:
            first_epoch(setting, since)
        reader = reading_speed(setting.stream, 20)
        found = shares(setting, given.rounds, given.steps)
    print("| | share of waiting, each round | steps per second |\n| --- | --- | --- |")
    for depth, rounds in found.items():
        waits = ", ".join(f"{100 * share:.2f} %" for share, _ in rounds)
        print(f"| data.prefetch={depth} | {waits} | {max(speed for _, speed in rounds):.2f} |")
    fastest = max(speed for rounds in found.values() for _, speed in rounds)
    print(
        f"\nreader alone: {reader:.1f} batches per second, {reader / fastest:.0f} times as many as the steps need; "
        f"{jax.device_count()} {jax.devices()[0].platform} device(s), load of the machine {os.getloadavg()[0]:.1f}"
    )
    return 0


if __name__ == "__main__":
    run_main(main)
