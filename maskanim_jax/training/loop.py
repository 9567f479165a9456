"""What happens in a training run? It opens the data, claims the workdir, restores or
initialises, then loops.

Each iteration steps, logs, evaluates and saves, in this order. Nothing is saved before all steps
since the last checkpoint were found finite. A run is a pure function of config, seed and data: a
killed run that is restarted resumes from its newest checkpoint to the same parameters and the same
log, bit-for-bit on a CPU.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from maskanim_jax.buckets.local_paths import in_words, opened
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.distributed.sharding import broadcast_from_process_0, local_replica
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.held_out import eval_images, eval_scalars, held_out_probe
from maskanim_jax.evaluation.reconstruction import reconstruct
from maskanim_jax.systems.interface import PyTree
from maskanim_jax.systems.train_state import TrainState
from maskanim_jax.training.consistency import check_processes_agree, check_shared
from maskanim_jax.training.early_stopping import Patience, TimeBudget
from maskanim_jax.training.experiment import (
    Experiment,
    Pair,
    batches,
    build_experiment,
    restore_or_init,
    run_record,
    startup_messages,
)
from maskanim_jax.training.first_step import CompileTimer
from maskanim_jax.training.metric_window import MetricAccumulator
from maskanim_jax.training.nonfinite import report_nonfinite
from maskanim_jax.training.preemption import PreemptionHandler
from maskanim_jax.training.step import StepFunction, make_train_step
from maskanim_jax.training.warm_start import INITIAL, Initial, messages, read_initial
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.workdir.workdir import Workdir


class Run(NamedTuple):
    """What the loop needs, without the training state."""

    experiment: Experiment
    folder: Workdir
    checkpoints: CheckpointManager
    clock: TimeBudget
    patience: Patience
    window: MetricAccumulator


def train(
    config: ConfigDict, workdir: Path, allow_config_change: bool = False, restore_step: int | None = None
) -> TrainState:
    """Trains to the end of the config and returns the last state.

    Resumes from the workdir's newest checkpoint, or from `restore_step`; later checkpoints are then
    archived. Raises UserError for a workdir with another config or other data, unless
    `allow_config_change`. Each start is recorded in `run.json`. On SIGTERM or SIGINT
    (see preemption.py) it saves and raises SystemExit or KeyboardInterrupt.
    """
    with (
        PreemptionHandler() as stop,
        opened(workdir, training=True) as workdir,
        contextlib.ExitStack() as stack,
    ):
        start_time = time.perf_counter()
        # Check everything that can fail before the folder is touched.
        experiment = build_experiment(config)
        initial = _read_initial(experiment, workdir)
        read = {} if initial is None else {"initial networks": initial.record["sha256"]}
        check_processes_agree(
            config, experiment.info, workdir=in_words(workdir), allow_config_change=allow_config_change, **read
        )

        folder = Workdir(workdir, leader=jax.process_index() == 0)
        folder.claim(config, allow_config_change)
        check_shared(workdir)
        folder.describe(experiment.system.paper_deviations())

        checkpoints = stack.enter_context(CheckpointManager(workdir, config.train.max_to_keep))
        state = restore_or_init(
            experiment, checkpoints, restore_step, allow_config_change=allow_config_change, initial=initial
        )
        folder.settle(config)
        # Saved at once, so that a run killed before its first checkpoint starts from the same networks.
        if initial is not None:
            checkpoints.save(state, experiment.info | {"minutes": 0.0, INITIAL: initial.record}, float("inf"))
            checkpoints.wait_until_finished()
            broadcast_from_process_0(True)  # the first process makes it visible
        start_step = int(state.step)
        put_aside = checkpoints.archive_after(start_step) if restore_step is not None else []
        saved = checkpoints.info(start_step) if start_step in checkpoints.all_steps() else {}

        stack.enter_context(folder.opened(start_step))
        _say_start(experiment, folder, checkpoints, state, saved, put_aside)
        stack.enter_context(
            report_nonfinite(workdir, config.seed, experiment.stream, experiment.clips, checkpoints, folder.log)
        )
        clock = TimeBudget(config.optim.max_minutes, checkpoints)
        patience = Patience(config.optim.patience, checkpoints)
        window = MetricAccumulator(experiment.system, experiment.stream.steps_per_epoch, saved.get("window"))
        return _loop(Run(experiment, folder, checkpoints, clock, patience, window), state, stop, start_time)


def _read_initial(experiment: Experiment, workdir: Path) -> Initial | None:
    """Reads the networks of `config.init_from`, unless the run already has a checkpoint
    (they may no longer exist).
    """
    source_state = bool(CheckpointManager(workdir, read_only=True).all_steps())
    return None if source_state else read_initial(experiment.config, experiment.system)


def _say_start(
    experiment: Experiment,
    folder: Workdir,
    checkpoints: CheckpointManager,
    state: TrainState,
    saved: Mapping[str, Any],
    put_aside: list[str],
) -> None:
    """Records this start in run.json and in the log."""
    if not folder.leader:
        return
    start_step = int(state.step)
    started = {INITIAL: saved[INITIAL]} if start_step == 0 and INITIAL in saved else {}
    folder.begin(run_record(experiment, start_step, checkpoints, list(folder.changed)) | started, state.params)
    folder.text(start_step, *startup_messages(experiment, state, start_step, checkpoints))
    folder.text(start_step, *(f"changed since the last start: {what}" for what in folder.changed), *put_aside)
    folder.text(start_step, *(messages(saved[INITIAL]) if started else []))


def _loop(run: Run, state: TrainState, stop: PreemptionHandler, start_time: float) -> TrainState:
    """Runs the steps from `state` to the end of the config, of its time limit
    or of its patience; returns the last state.
    """
    experiment, folder, checkpoints, clock, patience, window = run
    config, start_step = experiment.config, int(state.step)
    steps = start_step if clock.exceeded() or patience.exhausted(start_step) else experiment.num_steps
    step_function = make_train_step(
        experiment.system,
        config.seed,
        experiment.stream.steps_per_epoch,
        experiment.mesh,
        config.optim.grad_accum_steps,
        config.optim.ema,
    )
    with (
        contextlib.closing(batches(experiment, start_step)) as pairs,
        ProgressBar(
            total=experiment.num_steps,
            initial=start_step,
            desc="train",
            unit="step",
            disable=None if folder.leader else True,
        ) as bar,
    ):
        for step in range(start_step + 1, steps + 1):
            try:
                if step == start_step + 1:
                    with CompileTimer(start_time) as watched:
                        state = jax.block_until_ready(
                            train_step(step_function, state, experiment.frozen, pairs, window)
                        )
                    stop.mark_resumable()
                    folder.text(step, watched.message())
                else:
                    state = train_step(step_function, state, experiment.frozen, pairs, window)
            except UserError:  # the data failed before the step started, so the state is consistent
                window.check(step - 1)
                if jax.process_count() == 1:  # checkpoints are collective, and other processes are still training
                    _save_at_once(run, state)
                raise
            bar.update()
            last = step == steps or (step % 10 == 0 and clock.exceeded())
            if step % config.train.log_every == 0 or last:
                _write_figures(run, step)
            if folder.leader and (step % config.train.image_every == 0 or last or step == 1):
                variables = local_replica(state.averaged)
                folder.pictures(step, eval_images(experiment.system, variables, experiment.held_out, config.seed))
            if step % config.train.checkpoint_every == 0 or last:
                _evaluate_and_save(run, state, step)
                window.reset()
                if not last and patience.exhausted(step):
                    folder.text(step, patience.message())
                    last = True
            if last:
                break
            if stop.should_stop(step):
                window.check(step)
                _save_at_once(run, state)
                folder.text(step, stop.message(step))
                stop.exit()
            if checkpoints.failed:
                checkpoints.wait_until_finished()
        checkpoints.wait_until_finished()
        folder.text(int(state.step), f"finished at step {int(state.step)} of {steps}")
    return state


def train_step(
    run: StepFunction, state: TrainState, frozen: PyTree, batches: Iterator[Pair], window: MetricAccumulator
) -> TrainState:
    """Takes the next batch and dispatches one step; the devices may still be busy on return.

    Implicit host-device transfers are disallowed here.
    """
    with jax.transfer_guard("disallow"):
        asked = time.perf_counter()
        source, driving = next(batches)
        window.data_wait_s += time.perf_counter() - asked
        state, metrics = run(state, frozen, source, driving)
        window.add(metrics)
    return state


def _write_figures(run: Run, step: int) -> None:
    """Logs the metrics of the steps, skipped data, and warnings of mask collapse."""
    figures, faults = run.window.flush(step), run.experiment.stream.bad_records
    if run.folder.leader:
        run.folder.scalars(step, {**figures, **faults.metrics()})
        run.folder.text(
            step,
            *faults.drain_messages(),
            *(f"ALARM: {alarm}" for alarm in run.experiment.system.collapse_warnings(figures)),
        )


def _save_at_once(run: Run, state: TrainState) -> None:
    """Saves without evaluating, because there is no time or no data. All processes
    must be at the same step.

    Metrics since the last log line are saved, too, so that the next line
    equals an uninterrupted run's.
    """
    run.folder.sync()
    info = run.experiment.info | {"minutes": run.clock.minutes(), "window": run.window.pending()}
    run.checkpoints.save(state, info, float("inf"))  # does nothing if this step was just saved
    run.checkpoints.wait_until_finished()
    # Process 0 verifies; until then no process may exit, since that would end the others.
    broadcast_from_process_0(True)


def _evaluate_and_save(run: Run, state: TrainState, step: int) -> None:
    """Evaluates held-out clips, then saves; every process does both, since
    checkpoints are collective.
    """
    experiment, folder = run.experiment, run.folder
    settings = experiment.config.train
    measured = reconstruct(
        experiment.system,
        local_replica(state.averaged),
        experiment.held_out,
        clips=settings.num_eval_clips,
        frames=settings.eval_frames,
        silhouettes=experiment.silhouettes,
    )
    if folder.leader:
        probed, collapse_warnings = held_out_probe(
            experiment.system, local_replica(state.averaged), experiment.held_out
        )
        folder.scalars(step, eval_scalars(measured) | probed)
        folder.text(step, *(f"ALARM: {alarm}" for alarm in collapse_warnings))
        folder.sync()
    l1 = measured["l1"] if measured["l1"] is not None else float("inf")
    run.patience.note(step, l1)
    run.checkpoints.save(state, experiment.info | {"minutes": run.clock.minutes()}, l1)
