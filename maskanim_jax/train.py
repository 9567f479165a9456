"""How is a system trained? Read from top to bottom: data, system, state, step, loop.

The loop's order is: step, log, evaluate, save, then the next batch. A run is a pure function of config, seed and data; killed at any step
and started again it goes on from its newest checkpoint to the same parameters, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from input_pipeline.pairs import PairStream
from input_pipeline.shards import Split
from maskanim_jax.checkpoints import Checkpoints, abstract_state, claim_workdir
from maskanim_jax.data import open_data, true_silhouettes
from maskanim_jax.errors import UserError
from maskanim_jax.logs import RunLog
from maskanim_jax.losses.vgg import used_weights
from maskanim_jax.mesh import everywhere, local, make_mesh, replicated, to_devices
from maskanim_jax.nn.network import count_parameters
from maskanim_jax.pictures import grid, strip, to_uint8
from maskanim_jax.reconstruct import reconstruct
from maskanim_jax.state import StepFunction, TrainState, init_state, make_step
from maskanim_jax.systems import build
from maskanim_jax.systems.interface import System, Tree, Variables
from maskanim_jax.weights import find_vgg19, untrained_vgg19

SHOWN_PAIRS = 6
"""Pairs in a picture grid."""


def train(config: ConfigDict, workdir: Path) -> TrainState:
    """Trains to the end of the config, or goes on where the workdir's newest checkpoint is; returns the last state."""
    # Everything that can be wrong is found out before the workdir is touched.
    if config.train.checkpoint_every % config.train.log_every:
        raise UserError(
            f"config.train.checkpoint_every={config.train.checkpoint_every} must be a multiple of train.log_every={config.train.log_every}"
        )
    system = build(config)
    mesh = make_mesh(config.batch_size)
    split, held_out = open_data(config, "train"), open_data(config, "test")
    stream = PairStream(
        split,
        batch_size=config.batch_size,
        seed=config.seed,
        sampling=config.data.sampling,
        repeats=config.data.repeats,
        threads=config.data.threads,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    frozen = everywhere(mesh, used_weights(vgg_weights(config), config.loss.taps))
    claim_workdir(workdir, config)
    (workdir / "departures.json").write_text(json.dumps(system.departures(), indent=2))  # for the report

    steps = config.optim.epochs * stream.steps_per_epoch
    if config.optim.max_steps:
        steps = min(steps, config.optim.max_steps)
    info = {"data_fingerprint": stream.fingerprint, "steps_per_epoch": stream.steps_per_epoch, "seed": config.seed}
    step_function = make_step(system, config.seed, stream.steps_per_epoch, mesh)
    silhouettes = true_silhouettes(config, "test")

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, config.train.keep))
        state = _start(system, config, checkpoints, info, mesh)
        first = int(state.step)
        converted = first in checkpoints.steps() and "data_fingerprint" not in checkpoints.info(first)
        leader = jax.process_index() == 0
        log = stack.enter_context(RunLog(workdir, first)) if leader else None
        if log is not None:
            for line in _opening(config, system, state, stream, first, steps):
                log.text(first, line)
            if converted:
                log.text(first, "goes on from a converted checkpoint, whose data is not known to be this data")
        window = _Window(config, stream.steps_per_epoch, system)
        batches = stack.enter_context(contextlib.closing(stream.batches(first)))
        bar = stack.enter_context(
            tqdm(total=steps, initial=first, desc="train", unit="step", disable=None if leader else True)
        )
        clock = _Clock(config.optim.max_minutes, checkpoints)
        if clock.over():
            steps = first

        for step in range(first + 1, steps + 1):
            state = _one_step(step_function, state, frozen, batches, mesh, window)
            bar.update()
            last = step == steps or (step % 10 == 0 and clock.over())
            if step % config.train.log_every == 0 or last:
                figures = window.close(step)
                if log is not None:
                    log.scalars(step, figures)
                    for sentence in system.alarms(figures):
                        log.text(step, f"ALARM: {sentence}")
            if log is not None and (step % config.train.picture_every == 0 or last or step == 1):
                log.pictures(step, _pictures(system, local(state.variables), held_out, config.seed))
            if step % config.train.checkpoint_every == 0 or last:
                measured = reconstruct(
                    system,
                    local(state.variables),
                    held_out,
                    clips=config.train.eval_clips,
                    frames=config.train.eval_frames,
                    silhouettes=silhouettes,
                )
                if log is not None:
                    log.scalars(step, _held_out_figures(measured))
                checkpoints.save(
                    state,
                    info | {"minutes": clock.minutes()},
                    measured["l1"] if measured["l1"] is not None else float("inf"),
                )
                window.restart()
            if last:
                break
        checkpoints.wait()
        if log is not None:
            log.text(int(state.step), f"finished at step {int(state.step)} of {steps}")
    return state


def vgg_weights(config: ConfigDict) -> dict[str, np.ndarray]:
    """The weights of the perceptual loss that the config asks for; raises UserError with what to do when there are none."""
    if config.loss.vgg == "untrained":
        return untrained_vgg19(config.seed)
    if config.loss.vgg != "imagenet":
        raise UserError(f"config.loss.vgg={config.loss.vgg} cannot be: give 'imagenet' or 'untrained'")
    return find_vgg19()


def _start(
    system: System, config: ConfigDict, checkpoints: Checkpoints, info: Mapping[str, Any], mesh: jax.sharding.Mesh
) -> TrainState:
    """The newest checkpoint's state, or a fresh one."""
    step = checkpoints.last()
    if step is None:
        fresh = jax.jit(init_state, static_argnums=(0, 1, 2), out_shardings=replicated(mesh))
        return fresh(system, config.seed, info["steps_per_epoch"])
    saved = checkpoints.info(step)
    if saved.get("converted") and step > 0 and saved.get("steps_per_epoch") != info["steps_per_epoch"]:
        raise UserError(
            f"{checkpoints.folder / str(step)} was converted for other steps of an epoch: "
            f"convert it again with --steps_per_epoch={info['steps_per_epoch']}"
        )
    for key, what in (("data_fingerprint", "data"), ("steps_per_epoch", "steps of an epoch")):
        if key in saved and saved[key] != info[key]:  # a converted checkpoint does not know its data
            raise UserError(
                f"{checkpoints.folder / str(step)} was trained with other {what} ({saved[key]}, now {info[key]}): "
                "restore them or give another --workdir"
            )
    return checkpoints.restore(step, abstract_state(system, config.seed, info["steps_per_epoch"]), mesh)


def _opening(
    config: ConfigDict, system: System, state: TrainState, stream: PairStream, first: int, steps: int
) -> list[str]:
    """What is said before the first step."""
    counted = {name: count_parameters(params) for name, params in state.params.items()}
    lines = [
        f"{system.name}, the {config.reading}'s reading, {config.precision}, seed {config.seed}, "
        f"on {jax.device_count()} {jax.devices()[0].platform} device(s)",
        f"parameters: {', '.join(f'{name} {count:,}' for name, count in counted.items())}; together {sum(counted.values()):,}",
        stream.describe(),
        f"step {first} of {steps}" + (", resumed" if first else ""),
    ]
    if config.loss.vgg == "untrained":
        lines.append(
            "the perceptual loss uses UNTRAINED features of VGG-19: figures cannot be compared with the paper's"
        )
    return lines + [f"departs from the paper: {sentence}" for sentence in system.departures()]


def _one_step(
    run: StepFunction, state: TrainState, frozen: Tree, batches: Any, mesh: jax.sharding.Mesh, window: _Window
) -> TrainState:
    """Takes the next batch and makes one step; the device may still be busy with it on return."""
    asked = time.perf_counter()
    batch = next(batches)
    window.waited += time.perf_counter() - asked
    source, driving = to_devices(mesh, batch["source"]), to_devices(mesh, batch["driving"])
    state, metrics = run(state, frozen, source, driving)
    window.metrics.append(metrics)
    return state


class _Clock:
    """How long the run has trained, in all its processes."""

    def __init__(self, limit: float, checkpoints: Checkpoints) -> None:
        step = checkpoints.last()
        self._before = 0.0 if step is None else float(checkpoints.info(step)["minutes"])
        self._limit, self._since = limit or float("inf"), time.monotonic()

    def minutes(self) -> float:
        """Minutes so far, those before the newest checkpoint included."""
        return self._before + (time.monotonic() - self._since) / 60

    def over(self) -> bool:
        """Whether `config.optim.max_minutes` are used up."""
        return self.minutes() >= self._limit


class _Window:
    """The metrics since the last log line, left on the device until they are asked for."""

    def __init__(self, config: ConfigDict, steps_per_epoch: int, system: System) -> None:
        self._config, self._steps_per_epoch, self._system = config, steps_per_epoch, system
        self.restart()

    def restart(self) -> None:
        """Begins to count time and steps anew."""
        self.metrics: list[dict[str, jax.Array]] = []
        self.waited, self._since = 0.0, time.perf_counter()

    def close(self, step: int) -> dict[str, float]:
        """Means over the window, the learning rates, and how fast it went; then begins anew."""
        fetched = jax.device_get(self.metrics)
        spent = time.perf_counter() - self._since
        figures = {name: float(np.mean([metrics[name] for metrics in fetched])) for name in fetched[0]}
        rates = self._system.learning_rates(step - 1, self._steps_per_epoch)
        figures |= {f"learning_rate_{name}": rate for name, rate in rates.items()}
        figures |= {
            "epoch": step / self._steps_per_epoch,
            "steps_per_second": len(fetched) / spent,
            "data_wait_share": self.waited / spent,
        }
        self.restart()
        return figures


def _held_out_figures(measured: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of a reconstruction for the log."""
    figures = {f"test_{key}": measured[key] for key in ("l1", "l1_repeat_source", "ratio") if measured[key] is not None}
    return figures | {f"test_mask_{key}": float(value) for key, value in measured.get("mask", {}).items()}


def _pictures(system: System, variables: Variables, split: Split, seed: int) -> dict[str, np.ndarray]:
    """A grid of held-out pairs, each clip's first frame with its middle one: every intermediate picture side by side."""
    numbers = list(
        itertools.islice(itertools.cycle(range(len(split.clips))), min(SHOWN_PAIRS, max(2, len(split.clips))))
    )
    sources = np.stack([split.frame(n, 0) for n in numbers])
    drivings = np.stack([split.frame(n, split.clips[n].count // 2) for n in numbers])
    shown = jax.device_get(_shown(system, variables, jnp.asarray(sources), jnp.asarray(drivings), jax.random.key(seed)))
    rows = [
        strip(
            {name: shown[name][i] for name in system.picture_order},
            system.picture_order,
            max(96, system.frame_size),
            captions=i == 0,
        )
        for i in range(len(numbers))
    ]
    return {"held_out": grid(rows)} if rows else {"held_out": to_uint8(np.zeros((1, 1, 3)))}


def _show(
    system: System, variables: Variables, sources: jax.Array, drivings: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    return system.pictures(variables, sources.astype(jnp.float32) / 255.0, drivings.astype(jnp.float32) / 255.0, key)


_shown = jax.jit(_show, static_argnums=0)
