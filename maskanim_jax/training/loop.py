"""How is a system trained? Read from top to bottom: data, system, state, step, loop.

The loop's order is: step, log, evaluate, save, then the next batch. Nothing is saved before the log found the steps since the last
checkpoint finite. A run is a pure function of config, seed and data; killed at any step
and started again it goes on from its newest checkpoint to the same parameters and the same log, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from maskanim_jax.checkpoints.manager import Checkpoints
from maskanim_jax.distributed.sharding import agreed, local
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.held_out import held_out_figures, held_out_pictures, held_out_probe
from maskanim_jax.evaluation.reconstruction import reconstruct
from maskanim_jax.systems.interface import PyTree
from maskanim_jax.systems.train_state import TrainState
from maskanim_jax.training.consistency import agree, check_shared
from maskanim_jax.training.experiment import Pair, Setting, batches, opening, record_of_start, set_up, start
from maskanim_jax.training.first_step import FirstStep
from maskanim_jax.training.metric_window import Clock, Window
from maskanim_jax.training.nonfinite import explained
from maskanim_jax.training.preemption import Stop
from maskanim_jax.training.step import StepFunction, make_step
from maskanim_jax.training.warm_start import INITIAL, read_initial, sentences
from maskanim_jax.workdir.config import changes, claim_workdir, refuse_changes
from maskanim_jax.workdir.logs import RunLog
from maskanim_jax.workdir.provenance import add_start, write_departures


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
    # A run that has a checkpoint does not read again what it started from, which may be gone by then.
    begun = bool(Checkpoints(workdir, read_only=True).steps())
    initial = None if begun else read_initial(config, setting.system)
    read = {} if initial is None else {"initial networks": initial.record["sha256"]}
    agree(config, setting.info, workdir=str(workdir), accept_changes=accept_changes, **read)
    leader = jax.process_index() == 0
    changed, harmless = changes(workdir, config)
    refuse_changes(workdir, [] if accept_changes else changed)
    if not changed:  # else the workdir keeps its config until the state was restored with the new one
        claim_workdir(workdir, config)
    check_shared(workdir)
    if leader:
        write_departures(workdir, setting.system)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, config.train.keep))
        state = start(setting, checkpoints, from_step, accept_changes=accept_changes, initial=initial)
        if changed:
            claim_workdir(workdir, config, accept_changes)
        if initial is not None:  # saved at once: a run killed before its first checkpoint starts from the same networks
            checkpoints.save(state, setting.info | {"minutes": 0.0, INITIAL: initial.record}, float("inf"))
            checkpoints.wait()
            agreed(True)  # the first process makes it visible
        first = int(state.step)
        saved = checkpoints.info(first) if first in checkpoints.steps() else {}
        put_aside = checkpoints.set_aside(first) if from_step is not None else []
        log = stack.enter_context(RunLog(workdir, first)) if leader else None
        if log is not None:
            started = {INITIAL: saved[INITIAL]} if first == 0 and INITIAL in saved else {}
            others = add_start(workdir, record_of_start(setting, first, checkpoints, [*changed, *harmless]) | started)
            told = [f"changed since the last start: {what}" for what in (*changed, *harmless, *others)] + put_aside
            told += sentences(saved[INITIAL]) if started else []
            for line in opening(setting, state, first, checkpoints) + told:
                log.text(first, line)
        stack.enter_context(explained(workdir, config.seed, setting.stream, setting.clips, checkpoints, log))
        clock = Clock(config.optim.max_minutes, checkpoints)
        steps = first if clock.over() else setting.steps
        step_function = make_step(
            setting.system,
            config.seed,
            setting.stream.steps_per_epoch,
            setting.mesh,
            config.optim.accumulate,
            config.optim.ema,
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
                variables = local(state.averaged)
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


def one_step(
    run: StepFunction, state: TrainState, frozen: PyTree, batches: Iterator[Pair], window: Window
) -> TrainState:
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


def _evaluate_and_save(
    setting: Setting, state: TrainState, step: int, checkpoints: Checkpoints, clock: Clock, log: RunLog | None
) -> None:
    """Measures held-out clips, then saves; every process does both, since a checkpoint is written by all of them."""
    settings = setting.config.train
    measured = reconstruct(
        setting.system,
        local(state.averaged),
        setting.held_out,
        clips=settings.eval_clips,
        frames=settings.eval_frames,
        silhouettes=setting.silhouettes,
    )
    if log is not None:
        probed, alarms = held_out_probe(setting.system, local(state.averaged), setting.held_out)
        log.scalars(step, held_out_figures(measured) | probed)
        for alarm in alarms:
            log.text(step, f"ALARM: {alarm}")
        log.sync()
    l1 = measured["l1"] if measured["l1"] is not None else float("inf")
    checkpoints.save(state, setting.info | {"minutes": clock.minutes()}, l1)
