"""How is a system trained? Read from top to bottom: data, system, state, step, loop.

The loop's order is: step, log, evaluate, save, then the next batch. Nothing is saved before the log found the steps since the last
checkpoint finite. A run is a pure function of config, seed and data; killed at any step
and started again it goes on from its newest checkpoint to the same parameters and the same log, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from input_pipeline.from_config import open_data, true_silhouettes
from input_pipeline.pairs import Batch, PairStream
from input_pipeline.shards import Split
from maskanim_jax.checkpoints.loading import Checkpoints, abstract_state, changes, claim_workdir, refuse_changes
from maskanim_jax.distributed.sharding import agreed, everywhere, local, make_mesh, to_devices
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.held_out import held_out_figures, held_out_pictures, held_out_probe
from maskanim_jax.evaluation.reconstruction import Silhouettes, reconstruct
from maskanim_jax.losses.vgg import used_names, used_weights
from maskanim_jax.nn.functional import count_parameters
from maskanim_jax.nn.kernels.native import build as building
from maskanim_jax.systems import build
from maskanim_jax.systems.interface import System, Tree
from maskanim_jax.training.consistency import agree, check_shared
from maskanim_jax.training.first_step import FirstStep
from maskanim_jax.training.metric_window import Clock, Window
from maskanim_jax.training.nonfinite import explained
from maskanim_jax.training.preemption import Stop
from maskanim_jax.training.prefetch import prefetch
from maskanim_jax.training.step import StepFunction, TrainState, fresh_state, make_step
from maskanim_jax.utils.atomic_files import replacing
from maskanim_jax.weights import find_vgg19, untrained_vgg19
from maskanim_jax.workdir.logs import RunLog
from maskanim_jax.workdir.provenance import add_start, this_start

Pair = tuple[jax.Array, jax.Array]
"""Source and driving frames of a batch on the devices, (N, S, S, 3) uint8."""


class Setting(NamedTuple):
    """What the config says, opened and checked; nothing in it changes while training."""

    config: ConfigDict
    system: System
    mesh: jax.sharding.Mesh
    stream: PairStream
    clips: list[str]
    """Names of the training clips, by the numbers that a batch has."""
    frozen: Tree
    held_out: Split
    silhouettes: Silhouettes | None
    steps: int
    """The last step."""
    info: dict[str, Any]
    """What a checkpoint's state means."""


def train(config: ConfigDict, workdir: Path, accept_changes: bool = False, from_step: int | None = None) -> TrainState:
    """Trains to the end of the config, or goes on where the workdir's newest checkpoint is (or that of `from_step`, and later ones are put
    aside); returns the last state.

    A workdir whose config or data are others is refused (UserError) unless `accept_changes`; each start is written to `run.json`.
    Told to stop (see preemption.py) it saves and raises SystemExit or KeyboardInterrupt.
    """
    with Stop() as stop:
        return _train(config, workdir, accept_changes, from_step, stop)


def _train(config: ConfigDict, workdir: Path, accept_changes: bool, from_step: int | None, stop: Stop) -> TrainState:
    began = time.perf_counter()
    setting = set_up(config)  # everything that can be wrong is found out before the workdir is touched
    agree(config, setting.info, workdir=str(workdir), accept_changes=accept_changes)
    leader = jax.process_index() == 0
    changed, harmless = changes(workdir, config)
    refuse_changes(workdir, [] if accept_changes else changed)
    if not changed:  # else the workdir keeps its config until the state was restored with the new one
        claim_workdir(workdir, config)
    check_shared(workdir)
    if leader:
        _write_departures(workdir, setting.system)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, config.train.keep))
        state = start(setting, checkpoints, from_step, accept_changes=accept_changes)
        if changed:
            claim_workdir(workdir, config, accept_changes)
        first = int(state.step)
        saved = checkpoints.info(first) if first in checkpoints.steps() else {}
        put_aside = checkpoints.set_aside(first) if from_step is not None else []
        log = stack.enter_context(RunLog(workdir, first)) if leader else None
        if log is not None:
            others = add_start(workdir, _record(setting, first, checkpoints, [*changed, *harmless]))
            told = [f"changed since the last start: {what}" for what in (*changed, *harmless, *others)] + put_aside
            for line in _opening(setting, state, first, checkpoints) + told:
                log.text(first, line)
        stack.enter_context(explained(workdir, config.seed, setting.stream, setting.clips, checkpoints, log))
        clock = Clock(config.optim.max_minutes, checkpoints)
        steps = first if clock.over() else setting.steps
        step_function = make_step(
            setting.system, config.seed, setting.stream.steps_per_epoch, setting.mesh, config.optim.accumulate
        )
        pairs = stack.enter_context(contextlib.closing(batches(setting, first)))
        window = Window(setting.system, setting.stream.steps_per_epoch, saved.get("window"))
        bar = tqdm(total=setting.steps, initial=first, desc="train", unit="step", disable=None if leader else True)
        stack.enter_context(bar)

        for step in range(first + 1, steps + 1):
            try:
                if step == first + 1:
                    with FirstStep(began) as watched:
                        state = jax.block_until_ready(one_step(step_function, state, setting.frozen, pairs, window))
                    stop.armed()
                    if log is not None:
                        log.text(step, watched.sentence())
                else:
                    state = one_step(step_function, state, setting.frozen, pairs, window)
            except UserError:  # the data failed before the step began: what was learned so far is whole
                window.check(step - 1)
                if jax.process_count() == 1:  # all write a checkpoint together, and others are still training
                    _save_at_once(setting, state, checkpoints, clock, window, log)
                raise
            bar.update()
            last = step == steps or (step % 10 == 0 and clock.over())
            if step % config.train.log_every == 0 or last:
                _write_figures(log, setting, step, window.close(step))
            if log is not None and (step % config.train.picture_every == 0 or last or step == 1):
                variables = local(state.variables)
                log.pictures(step, held_out_pictures(setting.system, variables, setting.held_out, config.seed))
            if step % config.train.checkpoint_every == 0 or last:
                _evaluate_and_save(setting, state, step, checkpoints, clock, log)
                window.restart()
            if last:
                break
            if stop.asked(step):
                window.check(step)
                _save_at_once(setting, state, checkpoints, clock, window, log)
                if log is not None:
                    log.text(step, stop.sentence(step))
                stop.leave()
            if checkpoints.failed:
                checkpoints.wait()
        checkpoints.wait()
        if log is not None:
            log.text(int(state.step), f"finished at step {int(state.step)} of {steps}")
    return state


def set_up(config: ConfigDict) -> Setting:
    """Opens what the config names; raises UserError for what cannot work."""
    if config.train.checkpoint_every % config.train.log_every:
        raise UserError(
            f"config.train.checkpoint_every={config.train.checkpoint_every} must be a multiple of train.log_every={config.train.log_every}"
        )
    system = build(config)
    mesh = make_mesh(config.batch_size, config.optim.accumulate)
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
        skip_bad=config.data.skip_bad,
    )
    frozen = everywhere(mesh, used_weights(vgg_weights(config), config.loss.taps))
    steps = config.optim.epochs * stream.steps_per_epoch
    if config.optim.max_steps:
        steps = min(steps, config.optim.max_steps)
    info = {"data_fingerprint": stream.fingerprint, "steps_per_epoch": stream.steps_per_epoch, "seed": config.seed}
    clips = [clip.name for clip in split.clips]
    return Setting(config, system, mesh, stream, clips, frozen, held_out, true_silhouettes(config, "test"), steps, info)


def one_step(run: StepFunction, state: TrainState, frozen: Tree, batches: Iterator[Pair], window: Window) -> TrainState:
    """Takes the next batch and makes one step; the devices may still be busy with it on return.

    Nothing may go between host and devices unasked here: JAX raises an error for it.
    """
    with jax.transfer_guard("disallow"):
        asked = time.perf_counter()
        source, driving = next(batches)
        window.waited += time.perf_counter() - asked
        state, metrics = run(state, frozen, source, driving)
        window.add(metrics)
    return state


def vgg_weights(config: ConfigDict) -> dict[str, np.ndarray]:
    """The weights of the perceptual loss that the config asks for; raises UserError with what to do when there are none."""
    if config.loss.vgg == "untrained":
        return untrained_vgg19(config.seed)
    if config.loss.vgg != "imagenet":
        raise UserError(f"config.loss.vgg={config.loss.vgg} cannot be: give 'imagenet' or 'untrained'")
    return find_vgg19(only=used_names(config.loss.taps))  # the rest is nine tenths of it


def batches(setting: Setting, first: int) -> Generator[Pair]:
    """The pairs of steps first + 1, first + 2, ..., on the devices before they are needed."""

    def place(batch: Batch) -> Pair:
        return to_devices(setting.mesh, batch["source"]), to_devices(setting.mesh, batch["driving"])

    with (
        contextlib.closing(setting.stream.batches(first)) as read,
        contextlib.closing(prefetch(read, place, setting.config.data.prefetch)) as placed,
    ):
        yield from placed


def fresh(setting: Setting) -> TrainState:
    """The state before the first step."""
    return fresh_state(setting.system, setting.config.seed, setting.info["steps_per_epoch"], setting.mesh)


def start(
    setting: Setting, checkpoints: Checkpoints, from_step: int | None = None, accept_changes: bool = False
) -> TrainState:
    """The state of the newest checkpoint (or that of `from_step`), or a fresh one; raises UserError for one of other data."""
    config, info = setting.config, setting.info
    step = checkpoints.last() if from_step is None else from_step
    if from_step is not None and from_step not in checkpoints.steps():
        there = ", ".join(map(str, checkpoints.steps())) or "none"
        raise UserError(
            f"{checkpoints.folder} has no checkpoint of step {from_step}: give one of those there ({there})"
        )
    if step is None:
        return fresh(setting)
    saved = checkpoints.info(step)
    if saved.get("converted") and step > 0 and saved.get("steps_per_epoch") != info["steps_per_epoch"]:
        raise UserError(
            f"{checkpoints.folder / str(step)} was converted for other steps of an epoch: "
            f"convert it again with --steps_per_epoch={info['steps_per_epoch']}"
        )
    for key, what in (("data_fingerprint", "data"), ("steps_per_epoch", "steps of an epoch")):
        if key in saved and saved[key] != info[key] and not accept_changes:  # a converted one does not know its data
            raise UserError(
                f"{checkpoints.folder / str(step)} was trained with other {what} ({saved[key]}, now {info[key]}): "
                "restore them, give another --workdir, or --accept_changes to train on with these"
            )
    like = abstract_state(setting.system, config.seed, info["steps_per_epoch"])
    return checkpoints.restore(step, like, setting.mesh)


def _record(setting: Setting, first: int, checkpoints: Checkpoints, changed: list[str]) -> dict[str, Any]:
    """This start, for `run.json`."""
    data = {"shards": setting.config.data.shards, **setting.info}
    return this_start(
        setting.config.to_dict(),
        data,
        step=first,
        from_checkpoint=first in checkpoints.steps(),
        devices=f"{jax.device_count()} {jax.devices()[0].device_kind}",
        processes=jax.process_count(),
        convolutions=building.told(),
        changed=changed,
    )


def _opening(setting: Setting, state: TrainState, first: int, checkpoints: Checkpoints) -> list[str]:
    """What is said before the first step."""
    config, system = setting.config, setting.system
    counted = {name: count_parameters(params) for name, params in state.params.items()}
    lines = [
        f"{system.name}, the {config.reading}'s reading, {config.precision}, seed {config.seed}, "
        f"on {jax.device_count()} {jax.devices()[0].platform} device(s); convolutions: {building.told()}",
        f"parameters: {', '.join(f'{name} {count:,}' for name, count in counted.items())}; together {sum(counted.values()):,}",
        setting.stream.describe(config.optim.epochs),
        f"step {first} of {setting.steps}" + (", resumed" if first else ""),
    ]
    if config.loss.vgg == "untrained":
        lines.append(
            "the perceptual loss uses UNTRAINED features of VGG-19: figures cannot be compared with the paper's"
        )
    if first in checkpoints.steps() and "data_fingerprint" not in checkpoints.info(first):
        lines.append("goes on from a converted checkpoint, whose data is not known to be this data")
    if checkpoints.unchecked is not None:
        lines.append(checkpoints.unchecked)
    return lines + [f"departs from the paper: {sentence}" for sentence in system.departures()]


def _write_figures(log: RunLog | None, setting: Setting, step: int, figures: Mapping[str, float]) -> None:
    """Figures of the training steps, what was skipped of the data, and an alarm where something goes wrong."""
    faults = setting.stream.faults
    if log is not None:
        log.scalars(step, {**figures, **faults.figures()})
        for sentence in [*faults.news(), *(f"ALARM: {alarm}" for alarm in setting.system.alarms(figures))]:
            log.text(step, sentence)


def _save_at_once(
    setting: Setting, state: TrainState, checkpoints: Checkpoints, clock: Clock, window: Window, log: RunLog | None
) -> None:
    """Saves without measuring: there is no time for it, or the held-out clips are gone. All processes must be at the same step.

    The figures of the steps since the last log line are kept, too: the next line will be that of a run which was not interrupted.
    """
    if log is not None:
        log.sync()
    checkpoints.save(
        state,
        setting.info | {"minutes": clock.minutes(), "window": window.unlogged()},
        float("inf"),
    )  # nothing where the step was just saved
    checkpoints.wait()
    agreed(True)  # the first process verifies: nobody leaves, and thereby ends the others, before it is done


def _write_departures(workdir: Path, system: System) -> None:
    """For the report."""
    path = workdir / "departures.json"
    try:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(system.departures(), indent=2))
    except OSError as error:
        raise UserError(f"{path} can't be written ({error.strerror}): free it or give another --workdir") from error


def _evaluate_and_save(
    setting: Setting, state: TrainState, step: int, checkpoints: Checkpoints, clock: Clock, log: RunLog | None
) -> None:
    """Measures held-out clips, then saves; every process does both, since a checkpoint is written by all of them."""
    settings = setting.config.train
    measured = reconstruct(
        setting.system,
        local(state.variables),
        setting.held_out,
        clips=settings.eval_clips,
        frames=settings.eval_frames,
        silhouettes=setting.silhouettes,
    )
    if log is not None:
        probed, alarms = held_out_probe(setting.system, local(state.variables), setting.held_out)
        log.scalars(step, held_out_figures(measured) | probed)
        for alarm in alarms:
            log.text(step, f"ALARM: {alarm}")
        log.sync()
    l1 = measured["l1"] if measured["l1"] is not None else float("inf")
    checkpoints.save(state, setting.info | {"minutes": clock.minutes()}, l1)
