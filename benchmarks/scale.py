"""How much faster is a training step on two CPU devices than on one?

`python benchmarks/scale.py` runs the small Perturbed Masks model (`configs/small.py`) with the same
batch on one device and on several, alternately in one run. The ratio is the result. It also prints
the collectives of a step, counted from the compiled program.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from collectives import collectives, counted  # noqa: E402

from configs import puppets  # noqa: E402
from maskanim_jax.distributed import setup  # noqa: E402
from maskanim_jax.distributed.sharding import make_mesh, replicate, replicated_sharding, shard_batch  # noqa: E402
from maskanim_jax.errors import UserError, run_main  # noqa: E402
from maskanim_jax.losses.vgg import used_weights  # noqa: E402
from maskanim_jax.pretrained.vgg19 import untrained_vgg19  # noqa: E402
from maskanim_jax.systems import build  # noqa: E402
from maskanim_jax.systems.train_state import init_on_mesh  # noqa: E402
from maskanim_jax.training.step import make_train_step  # noqa: E402


def prepared(config, devices):
    """The compiled step on this many devices, and its arguments."""
    system, mesh = build(config), make_mesh(config.batch_size, config.optim.grad_accum_steps, jax.devices()[:devices])
    frozen = replicate(mesh, used_weights(untrained_vgg19(0), config.loss.vgg_layers))
    random, shape = np.random.default_rng(0), (config.batch_size, config.frame_size, config.frame_size, 3)
    pairs = [shard_batch(mesh, random.integers(0, 256, shape, np.uint8)) for _ in range(2)]
    state = init_on_mesh(system, 0, 10, mesh)
    state = state._replace(step=jax.device_put(jnp.int32(1000), replicated_sharding(mesh)))  # after the epoch without r
    step = make_train_step(system, 0, 10, mesh, config.optim.grad_accum_steps).lower(state, frozen, *pairs).compile()
    return step, state, (frozen, *pairs)


def main(argv=None):
    """Prints medians and the ratio."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--batch", type=int, default=4, help="global batch size (default 4)")
    flags.add_argument("--steps", type=int, default=8, help="steps per number of devices (default 8)")
    flags.add_argument("--devices", type=int, default=2, help="number of devices to compare with one (default 2)")
    flags.add_argument("--accumulate", type=int, default=1, help="microbatches per batch (default 1)")
    given = flags.parse_args(argv)
    if min(given.steps, given.devices) < 1:
        raise UserError("--steps and --devices must be at least 1")
    config = puppets.get_config()
    config.batch_size, config.num_cpu_devices, config.optim.grad_accum_steps = (
        given.batch,
        given.devices,
        given.accumulate,
    )
    setup.configure_jax(config)
    if given.devices > jax.device_count():
        raise UserError(
            f"--devices={given.devices} is more than the {jax.device_count()} available: give a smaller number"
        )
    kinds = sorted({1, given.devices})
    made = {devices: prepared(config, devices) for devices in tqdm(kinds, desc="compile", unit="program")}
    times = {devices: [] for devices in kinds}
    for _ in tqdm(range(given.steps + 1), desc="steps", unit="step"):
        for devices, (step, state, rest) in made.items():
            since = time.perf_counter()
            state, _ = jax.block_until_ready(step(state, *rest))
            times[devices].append(time.perf_counter() - since)
            made[devices] = step, state, rest
    medians = {devices: statistics.median(each[1:]) for devices, each in times.items()}
    print(
        "| devices | step, median | share of one device's time | operations between devices |\n| --- | --- | --- | --- |"
    )
    for devices, median in medians.items():
        talk = counted(collectives(made[devices][0].as_text()))
        said = ", ".join(f"{count} {kind}" for kind, count in talk.items()) or "none"
        print(f"| {devices} | {median:.3f} s | {median / medians[1]:.2f} | {said} |")
    print(f"\nbatch {given.batch}, {os.cpu_count()} cores, load of the machine {os.getloadavg()[0]:.1f}")
    return 0


if __name__ == "__main__":
    run_main(main)
