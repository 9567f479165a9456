"""How fast are training and animation, with how much memory, and at what
share of the device's peak?
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator import devices
from benchmarks.accelerator.workload import features_of, pairs, repeated
from maskanim_jax.distributed.sharding import make_mesh, replicate, shard_batch
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import init_on_mesh
from maskanim_jax.training.step import make_train_step

Row = dict[str, Any]
TURNS = 5
"""Times are the median of this many turns."""
DRAWN = 8
"""Distinct pairs in a batch; larger batches repeat them."""


def timed(run: Callable[[int], Any], seconds: float) -> tuple[float, int]:
    """Seconds for one call and the number of calls: the median of TURNS turns, which take
    about `seconds` together.

    `run(n)` makes n calls and returns what must be ready at the end.
    """
    jax.block_until_ready(run(2))
    began = time.perf_counter()
    jax.block_until_ready(run(1))
    calls = max(1, min(1000, round(seconds / TURNS / max(time.perf_counter() - began, 1e-4))))
    found = []
    for _ in range(TURNS):
        began = time.perf_counter()
        jax.block_until_ready(run(calls))
        found.append((time.perf_counter() - began) / calls)
    return statistics.median(found), calls * TURNS


def does_not_fit(error: Exception) -> bool:
    """Whether an error means that the device is out of memory."""
    text = f"{type(error).__name__} {error}".lower()
    return "resource_exhausted" in text or "out of memory" in text or "out_of_memory" in text


class Training:
    """A system's compiled training step at one batch size.

    Frames stay on the devices; `benchmarks/data_wait.py` measures reading.
    """

    def __init__(self, config: Any, batch: int) -> None:
        self.config, self.batch, self.system = config, batch, build(config)
        self.mesh = make_mesh(batch)
        weights, self.features = features_of(config)
        self.frozen = replicate(self.mesh, weights)
        # One step per epoch: every network is trained from the second step on, at the first learning rate.
        config.optim.decay_epochs = ()
        self.state = init_on_mesh(self.system, config.seed, 1, self.mesh)
        self.frames = [shard_batch(self.mesh, repeated(each, batch)) for each in pairs(DRAWN, config.frame_size, 1)]
        began = time.perf_counter()
        lowered = make_train_step(self.system, config.seed, 1, self.mesh).lower(self.state, self.frozen, *self.frames)
        self.flops = devices.flops_of(lowered)
        self.compiled = lowered.compile()
        self.compile_s = time.perf_counter() - began

    def run(self, count: int, each: Callable[[Row], None] = lambda metrics: None) -> Any:
        """Runs `count` steps; `each` receives the metrics of every step, still on the devices."""
        metrics: Row = {}
        for _ in range(count):
            self.state, metrics = self.compiled(self.state, self.frozen, *self.frames)
            each(metrics)
        return metrics


def training(configs: Callable[[], Any], batches: list[int], seconds: float) -> Iterator[Row]:
    """A row per batch size, smallest first; stops at the first that does not fit into memory."""
    for batch in sorted(batches):
        config = configs()
        row = {"system": config.system, "precision": config.precision, "size": config.frame_size, "batch": batch}
        try:
            made = Training(config, batch)
            spent, steps = timed(made.run, seconds)
        except Exception as error:
            if not does_not_fit(error):
                raise
            yield row | {"note": "does not fit into the device's memory"}
            return
        yield row | {
            "steps_per_s": 1 / spent,
            "frames_per_s": batch / spent,
            "peak_memory_mib": devices.peak_memory_mib(),
            "compiled_memory_mib": devices.compiled_memory_mib(made.compiled),
            "tflop_per_step": None if made.flops is None else made.flops / 1e12,
            "share_of_peak": devices.share_of_peak(made.flops, spent, config.precision),
            "compile_s": made.compile_s,
            "steps": steps,
            "vgg": made.features,
        }
        del made


def animation(configs: Callable[[], Any], batches: list[int], seconds: float) -> Iterator[Row]:
    """A row per batch size: frames per second on the device alone, and with results copied to the
    host as in `maskanim_jax.animate`.
    """
    from maskanim_jax.animation.compiled import JittedModel

    config = configs()
    system: Any = build(config)
    variables = jax.jit(system.init)(jax.random.key(config.seed))
    options = system.animation_options({})
    frames = [each.astype(np.float32) / 255 for each in pairs(DRAWN, config.frame_size, 1)]
    for batch in sorted(batches):
        row = {"system": config.system, "precision": config.precision, "size": config.frame_size, "batch": batch}
        ready, driving = JittedModel(system, variables, batch), repeated(frames[1], batch)
        source_state = ready.begin(frames[0][:1], frames[1][:1])
        began = time.perf_counter()
        try:
            placed = jax.block_until_ready(jax.device_put(driving))
            jax.block_until_ready(ready.step(source_state, placed, options, (system.result,)))
            compile_s = time.perf_counter() - began

            def on_device(
                count: int, placed: Any = placed, ready: Any = ready, source_state: Any = source_state
            ) -> Any:
                for _ in range(count):
                    found = ready.step(source_state, placed, options, (system.result,))
                return found

            def fetched(
                count: int, driving: Any = driving, ready: Any = ready, source_state: Any = source_state
            ) -> Any:
                for _ in range(count):
                    found = ready.step(source_state, driving, options, (system.result,))
                    np.asarray(found[system.result], np.float32)

            device_s, calls = timed(on_device, seconds / 2)
            whole_s, _ = timed(fetched, seconds / 2)
        except Exception as error:
            if not does_not_fit(error):
                raise
            yield row | {"note": "does not fit into the device's memory"}
            return
        flops = devices.flops_of(
            jax.jit(lambda v, b, d: system.animate(v, b, d, options)[system.result]).lower(
                variables, source_state, driving
            )
        )
        yield row | {
            "frames_per_s": batch / device_s,
            "frames_per_s_fetched": batch / whole_s,
            "ms_per_batch": 1000 * device_s,
            "peak_memory_mib": devices.peak_memory_mib(),
            "tflop_per_frame": None if flops is None else flops / batch / 1e12,
            "share_of_peak": devices.share_of_peak(flops, device_s, config.precision),
            "compile_s": compile_s,
            "batches": calls,
        }


def learning(config: Any, batch: int, steps: int) -> Iterator[Row]:
    """Trains `steps` steps on one batch.

    Every loss that is active from the first step on must fall between the first and the
    last tenth of the steps.
    """
    made = Training(config, batch)
    seen: list[Row] = []

    def note(metrics: Row) -> None:
        seen.append({name: value for name, value in metrics.items() if name.startswith("loss_")})
        if len(seen) % 20 == 0:
            jax.block_until_ready(metrics)  # keeps the host from running far ahead

    began = time.perf_counter()
    jax.block_until_ready(made.run(steps, note))
    spent = time.perf_counter() - began
    values = {name: np.array([float(each[name]) for each in jax.device_get(seen)]) for name in seen[0]}
    few = max(1, steps // 10)
    change = {}
    for name, each in values.items():
        begins = int(np.argmax(each != 0))  # some networks start later
        if begins < 2 and each[begins]:
            change[name] = [float(each[begins : begins + few].mean()), float(each[-few:].mean())]
    total = [sum(first) for first in zip(*change.values(), strict=True)]
    finite = all(np.isfinite(each).all() for each in values.values())
    yield {
        "system": config.system,
        "precision": config.precision,
        "size": config.frame_size,
        "batch": batch,
        "steps": steps,
        "steps_per_s": steps / spent,
        "loss_first": total[0],
        "loss_last": total[1],
        "losses": change,
        "vgg": made.features,
        "passed": bool(finite and total[1] < total[0]),
    }
