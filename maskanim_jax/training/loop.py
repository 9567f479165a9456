"""How is a system trained? Read from top to bottom: what the config names, the folder, the state, then the loop.

The loop's order is: step, log, evaluate, save, then the next batch. Nothing is saved before the log found the steps since the last
checkpoint finite. A run is a pure function of config, seed and data; killed at any step
and started again it goes on from its newest checkpoint to the same parameters and the same log, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict
from tqdm import tqdm

from maskanim_jax.buckets.local_paths import in_words, opened
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
from maskanim_jax.training.warm_start import INITIAL, Initial, read_initial, sentences
from maskanim_jax.workdir.workdir import Workdir


class Run(NamedTuple):
    """What the loop works with; the state of the training is not in it."""

    setting: Setting
    folder: Workdir
    checkpoints: Checkpoints
    clock: Clock
    window: Window


def train(
    config: ConfigDict, workdir: Path, allow_config_change: bool = False, restore_step: int | None = None
) -> TrainState:
    """Trains to the end of the config, or goes on where the workdir's newest checkpoint is (or that of `restore_step`, and later ones are put
    aside); returns the last state.

    A workdir whose config or data are others is refused (UserError) unless `allow_config_change`; each start is written to `run.json`.
    Told to stop (see preemption.py) it saves and raises SystemExit or KeyboardInterrupt.
    """
    with (
        Stop() as stop,
        opened(workdir, training=True) as workdir,
        contextlib.ExitStack() as stack,
    ):
        began = time.perf_counter()
        # Everything that can be wrong is found out before the folder is touched.
        setting = set_up(config)
        initial = _read_initial(setting, workdir)
        read = {} if initial is None else {"initial networks": initial.record["sha256"]}
        agree(config, setting.info, workdir=in_words(workdir), allow_config_change=allow_config_change, **read)

        folder = Workdir(workdir, leader=jax.process_index() == 0)
        folder.claim(config, allow_config_change)
        check_shared(workdir)
        folder.describe(setting.system.paper_deviations())

        checkpoints = stack.enter_context(Checkpoints(workdir, config.train.max_to_keep))
        state = start(setting, checkpoints, restore_step, allow_config_change=allow_config_change, initial=initial)
        folder.settle(config)
        if initial is not None:  # saved at once: a run killed before its first checkpoint starts from the same networks
            checkpoints.save(state, setting.info | {"minutes": 0.0, INITIAL: initial.record}, float("inf"))
            checkpoints.wait()
            agreed(True)  # the first process makes it visible
        first = int(state.step)
        put_aside = checkpoints.set_aside(first) if restore_step is not None else []
        saved = checkpoints.info(first) if first in checkpoints.steps() else {}

        stack.enter_context(folder.opened(first))
        _say_start(setting, folder, checkpoints, state, saved, put_aside)
        stack.enter_context(explained(workdir, config.seed, setting.stream, setting.clips, checkpoints, folder.log))
        clock = Clock(config.optim.max_minutes, checkpoints)
        window = Window(setting.system, setting.stream.steps_per_epoch, saved.get("window"))
        return _loop(Run(setting, folder, checkpoints, clock, window), state, stop, began)


def _read_initial(setting: Setting, workdir: Path) -> Initial | None:
    """The networks that `config.init_from` names. A run that has a checkpoint doesn't read them again: they may be gone by then."""
    source_state = bool(Checkpoints(workdir, read_only=True).steps())
    return None if source_state else read_initial(setting.config, setting.system)


def _say_start(
    setting: Setting,
    folder: Workdir,
    checkpoints: Checkpoints,
    state: TrainState,
    saved: Mapping[str, Any],
    put_aside: list[str],
) -> None:
    """Writes this start to run.json, and what there is to say about it to the log."""
    if not folder.leader:
        return
    first = int(state.step)
    started = {INITIAL: saved[INITIAL]} if first == 0 and INITIAL in saved else {}
    folder.begin(record_of_start(setting, first, checkpoints, list(folder.changed)) | started, state.params)
    folder.text(first, *opening(setting, state, first, checkpoints))
    folder.text(first, *(f"changed since the last start: {what}" for what in folder.changed), *put_aside)
    folder.text(first, *(sentences(saved[INITIAL]) if started else []))


def _loop(run: Run, state: TrainState, stop: Stop, began: float) -> TrainState:
    """The steps from `state` to the end of the config or of its time; returns the last state."""
    setting, folder, checkpoints, clock, window = run
    config, first = setting.config, int(state.step)
    steps = first if clock.over() else setting.steps
    step_function = make_step(
        setting.system,
        config.seed,
        setting.stream.steps_per_epoch,
        setting.mesh,
        config.optim.grad_accum_steps,
        config.optim.ema,
    )
    with (
        contextlib.closing(batches(setting, first)) as pairs,
        tqdm(
            total=setting.steps,
            initial=first,
            desc="train",
            unit="step",
            disable=None if folder.leader else True,
        ) as bar,
    ):
        for step in range(first + 1, steps + 1):
            try:
                if step == first + 1:
                    with FirstStep(began) as watched:
                        state = jax.block_until_ready(one_step(step_function, state, setting.frozen, pairs, window))
                    stop.armed()
                    folder.text(step, watched.sentence())
                else:
                    state = one_step(step_function, state, setting.frozen, pairs, window)
            except UserError:  # the data failed before the step began: what was learned so far is whole
                window.check(step - 1)
                if jax.process_count() == 1:  # all write a checkpoint together, and others are still training
                    _save_at_once(run, state)
                raise
            bar.update()
            last = step == steps or (step % 10 == 0 and clock.over())
            if step % config.train.log_every == 0 or last:
                _write_figures(run, step)
            if folder.leader and (step % config.train.image_every == 0 or last or step == 1):
                variables = local(state.averaged)
                folder.pictures(step, held_out_pictures(setting.system, variables, setting.held_out, config.seed))
            if step % config.train.checkpoint_every == 0 or last:
                _evaluate_and_save(run, state, step)
                window.restart()
            if last:
                break
            if stop.asked(step):
                window.check(step)
                _save_at_once(run, state)
                folder.text(step, stop.sentence(step))
                stop.leave()
            if checkpoints.failed:
                checkpoints.wait()
        checkpoints.wait()
        folder.text(int(state.step), f"finished at step {int(state.step)} of {steps}")
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


def _write_figures(run: Run, step: int) -> None:
    """Figures of the training steps, what was skipped of the data, and an alarm where something goes wrong."""
    figures, faults = run.window.close(step), run.setting.stream.bad_records
    if run.folder.leader:
        run.folder.scalars(step, {**figures, **faults.metrics()})
        run.folder.text(
            step,
            *faults.drain_messages(),
            *(f"ALARM: {alarm}" for alarm in run.setting.system.collapse_warnings(figures)),
        )


def _save_at_once(run: Run, state: TrainState) -> None:
    """Saves without measuring: there is no time for it, or the held-out clips are gone. All processes must be at the same step.

    The figures of the steps since the last log line are kept, too: the next line will be that of a run which was not interrupted.
    """
    run.folder.sync()
    info = run.setting.info | {"minutes": run.clock.minutes(), "window": run.window.unlogged()}
    run.checkpoints.save(state, info, float("inf"))  # nothing where the step was just saved
    run.checkpoints.wait()
    agreed(True)  # the first process verifies: nobody leaves, and thereby ends the others, before it is done


def _evaluate_and_save(run: Run, state: TrainState, step: int) -> None:
    """Measures held-out clips, then saves; every process does both, since a checkpoint is written by all of them."""
    setting, folder = run.setting, run.folder
    settings = setting.config.train
    measured = reconstruct(
        setting.system,
        local(state.averaged),
        setting.held_out,
        clips=settings.num_eval_clips,
        frames=settings.eval_frames,
        silhouettes=setting.silhouettes,
    )
    if folder.leader:
        probed, collapse_warnings = held_out_probe(setting.system, local(state.averaged), setting.held_out)
        folder.scalars(step, held_out_figures(measured) | probed)
        folder.text(step, *(f"ALARM: {alarm}" for alarm in collapse_warnings))
        folder.sync()
    l1 = measured["l1"] if measured["l1"] is not None else float("inf")
    run.checkpoints.save(state, setting.info | {"minutes": run.clock.minutes()}, l1)
