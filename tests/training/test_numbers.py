"""Does a non-finite number stop a run before it is saved, and can the step be replayed?"""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_system import SmallSystem
from small_train import small_config

from input_pipeline.pairs import PairStream
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import Gradients
from maskanim_jax.training import experiment
from maskanim_jax.training.loop import train
from maskanim_jax.training.metric_window import MetricAccumulator, NonFiniteStep
from maskanim_jax.training.nonfinite import words
from maskanim_jax.training.replay import replay
from maskanim_jax.training.step import finite_check
from maskanim_jax.workdir.logs import read_log

pytestmark = pytest.mark.usefixtures("shared_programs")


def found(grads=1.0, loss=1.0, stats=1.0, other=1.0):
    metrics = {"loss": jnp.asarray(loss), "mask_mean": jnp.asarray(other)}
    return Gradients({"a": {"w": jnp.full(3, grads)}, "empty": {}}, {"a": jnp.asarray(stats)}, metrics)


def test_health_has_the_norm_of_each_network():
    metrics = finite_check(found(grads=2.0))
    assert float(metrics["gradient_norm_a"]) == pytest.approx(math.sqrt(12))
    assert float(metrics["gradient_norm_empty"]) == 0.0
    assert bool(metrics["finite"])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["grads", "loss", "stats"])
def test_health_sees_each_part_of_a_step(part, bad):
    assert not bool(finite_check(found(**{part: bad}))["finite"])


def test_a_gradient_whose_square_overflows_is_not_finite_and_a_mere_figure_stops_nothing():
    assert not bool(finite_check(found(grads=1e30))["finite"])
    assert bool(finite_check(found(other=math.nan))["finite"])


def test_a_window_names_the_first_bad_step_of_several():
    window = MetricAccumulator(SmallSystem(), 10)
    for loss, finite in ((1.0, True), (math.nan, False), (math.nan, False)):
        window.add({"loss": np.float32(loss), "gradient_norm_a": np.float32(1), "finite": np.bool_(finite)})
    for look in (window.check, window.flush):
        with pytest.raises(NonFiniteStep) as caught:
            look(7)
        assert (caught.value.step, caught.value.names) == (6, ["loss"])


def test_words_tell_losses_from_networks():
    figures = {"loss": math.nan, "gradient_norm_mask": math.inf, "gradient_norm_fine": math.nan, "gradient_norm_x": 1.0}
    assert words(figures) == "loss; the gradient of mask, fine"
    assert words({"loss": 1.0}) == "the batch statistics"


class Breaking(SmallSystem):
    """Its gradient of `conv` is not a number from the fifth step on."""

    def gradients(self, variables, frozen, source, driving, key, step, steps_per_epoch):
        result = super().gradients(variables, frozen, source, driving, key, step, steps_per_epoch)
        kernel = jnp.where(step >= 4, jnp.nan, result.grads["conv"])
        return result._replace(grads={**result.grads, "conv": kernel})


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def broken(tiny_shards, tmp_path_factory):
    """A run with a checkpoint of step 3 that broke at step 5, seen at the log of step 6; what it said."""
    config, workdir = small_config(tiny_shards), tmp_path_factory.mktemp("numbers") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "build", lambda config: Breaking())
        train(config, workdir)
        kept = contents(workdir / "checkpoints" / "3")
        config.optim.max_steps, config.train.log_every = 9, 3
        with pytest.raises(UserError) as caught:
            train(config, workdir)
    return config, workdir, kept, str(caught.value)


def test_a_run_with_a_bad_step_stops_and_leaves_the_last_good_checkpoint_as_it_was(broken):
    _, workdir, kept, _ = broken
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        assert checkpoints.all_steps() == [3]
    assert contents(workdir / "checkpoints" / "3") == kept


def test_the_sentence_has_step_network_clips_seed_and_command(broken):
    config, workdir, _, said = broken
    assert "step 5 is not finite (the gradient of conv)" in said
    assert "the checkpoint of step 3 is unchanged" in said
    assert f"--workdir={workdir} --mode=replay --step=5" in said
    record = json.loads((workdir / "not_finite_5.json").read_text())
    assert record["not_finite"] == ["gradient_norm_conv"]
    assert (record["seed"], record["last_good_checkpoint"], len(record["pairs"])) == (config.seed, 3, config.batch_size)
    assert record["pairs"][0]["clip"] in said
    assert any("step 5 is not finite" in line.get("text", "") for line in read_log(workdir))


def test_the_step_is_made_again_to_the_last_bit_and_the_run_is_left_alone(broken, monkeypatch):
    config, workdir, kept, _ = broken
    monkeypatch.setattr(experiment, "build", lambda config: Breaking())
    table = replay(config, workdir, 5)
    assert "step 5, replayed from step 3, is not finite: the gradient of conv" in table
    assert "bit for bit" in table
    report = json.loads((workdir / "replay" / "5" / "figures.json").read_text())
    assert report["pairs"] == json.loads((workdir / "not_finite_5.json").read_text())["pairs"]
    assert report["networks"]["conv"]["bad_parameters"] == 81
    assert report["networks"]["norm"]["bad_parameters"] == 0
    assert (workdir / "replay" / "5" / "pictures.png").exists()
    assert (workdir / "replay" / "5" / "batch.png").exists()
    assert contents(workdir / "checkpoints" / "3") == kept
    assert "is finite" in replay(config, workdir, 4)
    assert "step 5, replayed" in replay(config, workdir, 8)  # the first bad one on the way


def test_data_that_fails_after_a_bad_step_does_not_save_it(broken, tiny_shards, tmp_path, monkeypatch):
    config = small_config(tiny_shards)
    config.optim.max_steps = config.train.log_every = config.train.checkpoint_every = 20
    config.data.prefetch = config.data.num_threads = 0
    original = PairStream.batches

    def batches(stream, start_step=0):
        for number, batch in enumerate(original(stream, start_step), start_step):
            if number == 7:
                raise UserError("a shard is gone")
            yield batch

    monkeypatch.setattr(PairStream, "batches", batches)
    monkeypatch.setattr(experiment, "build", lambda config: Breaking())
    with pytest.raises(UserError, match=r"step 5 is not finite.*there is no checkpoint yet"):
        train(config, tmp_path / "run")
    assert not [path for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit()]


def test_a_replay_of_nothing_is_a_sentence(tiny_shards, tmp_path):
    with pytest.raises(UserError, match="checkpoints"):
        replay(small_config(tiny_shards), tmp_path, 3)


def test_a_good_run_logs_the_norms_and_not_the_flag(broken):
    lines = [line for line in read_log(broken[1]) if "loss" in line]
    assert lines
    assert all(line["gradient_norm_conv"] > 0 and "finite" not in line for line in lines)
    assert jax.process_count() == 1
