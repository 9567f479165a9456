"""What does a config describe?

Data, system, frozen networks and initial state, checked before the first step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from input_pipeline.from_config import held_out_split, open_data, true_silhouettes
from input_pipeline.pairs import Batch, PairStream
from input_pipeline.shards import Split
from maskanim_jax.checkpoints.manager import EMA, CheckpointManager
from maskanim_jax.distributed.sharding import make_mesh, replicate, shard_batch
from maskanim_jax.errors import UserError, check_at_least
from maskanim_jax.evaluation.reconstruction import Silhouettes
from maskanim_jax.losses.vgg import used_names, used_weights
from maskanim_jax.nn.functional import count_parameters
from maskanim_jax.nn.kernels.native import build as building
from maskanim_jax.pretrained.vgg19 import load_vgg19, untrained_vgg19
from maskanim_jax.systems import build
from maskanim_jax.systems.averaging import check_decay
from maskanim_jax.systems.interface import PyTree, System
from maskanim_jax.systems.train_state import TrainState, abstract_state, init_on_mesh, with_averages
from maskanim_jax.training.prefetch import prefetch
from maskanim_jax.training.warm_start import Initial, started_from
from maskanim_jax.workdir.provenance import make_run_record

Pair = tuple[jax.Array, jax.Array]
"""Source and driving frames of a batch on the devices, (N, S, S, 3) uint8."""


class Experiment(NamedTuple):
    """Everything that the config names, opened and checked; constant during training."""

    config: ConfigDict
    system: System
    mesh: jax.sharding.Mesh
    stream: PairStream
    clips: list[str]
    """Names of the training clips, indexed by a batch's clip numbers."""
    frozen: PyTree
    held_out: Split
    silhouettes: Silhouettes | None
    num_steps: int
    """The last step."""
    info: dict[str, Any]
    """Metadata to save with each checkpoint."""


def build_experiment(config: ConfigDict) -> Experiment:
    """Opens everything that the config names; raises UserError for invalid settings."""
    if config.train.checkpoint_every % config.train.log_every:
        raise UserError(
            f"config.train.checkpoint_every={config.train.checkpoint_every} must be a multiple of train.log_every={config.train.log_every}"
        )
    check_decay(config.optim.ema)
    check_at_least("config.optim.patience", config.optim.patience, 0)
    system = build(config)
    mesh = make_mesh(config.batch_size, config.optim.grad_accum_steps)
    measured = held_out_split(config, jax.process_index())
    split, held_out = (open_data(config, name, jax.process_index()) for name in ("train", measured))
    stream = PairStream(
        split,
        batch_size=config.batch_size,
        seed=config.seed,
        sampling=config.data.sampling,
        repeats=config.data.num_repeats,
        threads=config.data.num_threads,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        max_bad_fraction=config.data.max_bad_fraction,
    )
    frozen = replicate(mesh, used_weights(vgg_weights(config), config.loss.vgg_layers))
    steps = config.optim.epochs * stream.steps_per_epoch
    if config.optim.max_steps:
        steps = min(steps, config.optim.max_steps)
    info = {"data_fingerprint": stream.fingerprint, "steps_per_epoch": stream.steps_per_epoch, "seed": config.seed}
    if config.optim.ema:
        info[EMA] = config.optim.ema
    clips = [clip.name for clip in split.clips]
    return Experiment(
        config, system, mesh, stream, clips, frozen, held_out, true_silhouettes(config, held_out), steps, info
    )


def vgg_weights(config: ConfigDict) -> dict[str, np.ndarray]:
    """The VGG-19 weights for the perceptual loss; raises UserError when they are missing."""
    if config.loss.vgg == "untrained":
        return untrained_vgg19(config.seed)
    if config.loss.vgg != "imagenet":
        raise UserError(f"config.loss.vgg={config.loss.vgg} must be 'imagenet' or 'untrained'")
    return load_vgg19(only=used_names(config.loss.vgg_layers))  # the other layers are nine tenths of the network


def batches(experiment: Experiment, start_step: int) -> Generator[Pair]:
    """Yields the pairs of the steps after `start_step`, placed on the devices ahead of time."""

    def place(batch: Batch) -> Pair:
        return shard_batch(experiment.mesh, batch["source"]), shard_batch(experiment.mesh, batch["driving"])

    with (
        contextlib.closing(experiment.stream.batches(start_step)) as read,
        contextlib.closing(prefetch(read, place, experiment.config.data.prefetch)) as placed,
    ):
        yield from placed


def init_state(experiment: Experiment) -> TrainState:
    """The state before the first step of a run with random initialisation."""
    config = experiment.config
    return init_on_mesh(
        experiment.system, config.seed, experiment.info["steps_per_epoch"], experiment.mesh, config.optim.ema
    )


def restore_or_init(
    experiment: Experiment,
    checkpoints: CheckpointManager,
    restore_step: int | None = None,
    allow_config_change: bool = False,
    initial: Initial | None = None,
) -> TrainState:
    """Restores the newest checkpoint (or `restore_step`), or initialises, with the
    networks of `initial` if given.

    Raises UserError for a checkpoint that was trained on other data.
    """
    config, info = experiment.config, experiment.info
    step = checkpoints.latest_step() if restore_step is None else restore_step
    if restore_step is not None and restore_step not in checkpoints.all_steps():
        there = ", ".join(map(str, checkpoints.all_steps())) or "none"
        raise UserError(f"{checkpoints.folder} has no checkpoint of step {restore_step}: give one of {there}")
    if step is None:
        state = init_state(experiment)
        return (
            state
            if initial is None
            else started_from(initial, state, experiment.system, info["steps_per_epoch"], experiment.mesh)
        )
    saved = checkpoints.info(step)
    if saved.get("converted") and step > 0 and saved.get("steps_per_epoch") != info["steps_per_epoch"]:
        raise UserError(
            f"{checkpoints.folder / str(step)} was converted for another number of steps per epoch: "
            f"convert it again with --steps_per_epoch={info['steps_per_epoch']}"
        )
    for key, what in (("data_fingerprint", "data"), ("steps_per_epoch", "steps per epoch")):
        # Converted checkpoints do not record their data.
        if key in saved and saved[key] != info[key] and not allow_config_change:
            raise UserError(
                f"{checkpoints.folder / str(step)} was trained with other {what} ({saved[key]}, now {info[key]}): "
                "restore them, give another --workdir, or --allow_config_change to continue with these"
            )
    like = abstract_state(experiment.system, config.seed, info["steps_per_epoch"], saved.get(EMA, 0.0))
    return with_averages(checkpoints.restore(step, like, experiment.mesh), config.optim.ema, experiment.mesh)


def run_record(
    experiment: Experiment, start_step: int, checkpoints: CheckpointManager, changed: list[str]
) -> dict[str, Any]:
    """The record of this start for `run.json`."""
    data = {"shards": experiment.config.data.shards, "held_out_split": experiment.held_out.name, **experiment.info}
    return make_run_record(
        experiment.config.to_dict(),
        data,
        step=start_step,
        from_checkpoint=start_step in checkpoints.all_steps(),
        devices=f"{jax.device_count()} {jax.devices()[0].device_kind}",
        processes=jax.process_count(),
        convolutions=building.describe_backend(),
        changed=changed,
    )


def startup_messages(
    experiment: Experiment, state: TrainState, start_step: int, checkpoints: CheckpointManager
) -> list[str]:
    """Messages to log before the first step."""
    config, system = experiment.config, experiment.system
    counted = {name: count_parameters(params) for name, params in state.params.items()}
    lines = [
        f"{system.name} as in the {config.reference}, {config.precision}, seed {config.seed}, "
        f"on {jax.device_count()} {jax.devices()[0].platform} device(s); convolutions: {building.describe_backend()}",
        f"parameters: {', '.join(f'{name} {count:,}' for name, count in counted.items())}; together {sum(counted.values()):,}",
        experiment.stream.describe(config.optim.epochs),
        f"held-out metrics (test_*), pictures and the best checkpoint use the {experiment.held_out.name} split",
        f"step {start_step} of {experiment.num_steps}" + (", resumed" if start_step else ""),
    ]
    if config.loss.vgg == "untrained":
        lines.append(
            "the perceptual loss uses UNTRAINED features of VGG-19: metrics cannot be compared with the paper's"
        )
    if config.optim.ema:
        lines.append(
            f"evaluation, pictures and animation use averaged weights and statistics, with decay {config.optim.ema:g}"
        )
    if config.optim.cosine_steps and experiment.num_steps > config.optim.cosine_steps:
        lines.append(
            f"the learning rate is zero after step {config.optim.cosine_steps} (optim.cosine_steps): later steps change nothing"
        )
    if start_step in checkpoints.all_steps() and "data_fingerprint" not in checkpoints.info(start_step):
        lines.append("resumes from a converted checkpoint, which may have been trained on other data")
    if checkpoints.unchecked is not None:
        lines.append(checkpoints.unchecked)
    return lines + [f"deviates from the paper: {message}" for message in system.paper_deviations()]
