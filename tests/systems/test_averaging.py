"""Are averaged weights correct, kept through a kill, used for all results, and absent when disabled?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_system import SmallSystem
from states import assert_equal_states
from tiny import one_step_config, tiny_config

from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.distributed.sharding import make_mesh
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.reconstruction import reconstruct
from maskanim_jax.systems.averaging import begin, moved
from maskanim_jax.systems.interface import Variables
from maskanim_jax.systems.train_state import abstract_state, init_state
from maskanim_jax.training import experiment
from maskanim_jax.training import loop as train_module
from maskanim_jax.training.loop import train
from maskanim_jax.training.step import make_train_step
from maskanim_jax.workdir.logs import read_log

pytestmark = pytest.mark.usefixtures("shared_programs")


def config_with(shards, ema, steps=6):
    config = tiny_config(shards)
    config.optim.ema, config.optim.max_steps = ema, steps
    return config


@pytest.fixture
def small(monkeypatch):
    """Training and loading with the system that compiles in a second."""
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    monkeypatch.setattr("maskanim_jax.checkpoints.loading.build", lambda config: SmallSystem())


def test_the_first_steps_count_more_and_later_ones_by_the_decay():
    averages = begin(Variables({"net": jnp.zeros(2)}, {"net": jnp.ones(2)}))
    expected = 0.0
    for step in range(200):
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * (step + 1)
        new = Variables({"net": jnp.full(2, step + 1.0)}, {"net": jnp.ones(2)})
        averages = moved(averages, new, jnp.int32(step), 0.9)
        np.testing.assert_allclose(averages["params"]["net"], expected, rtol=1e-5)
    np.testing.assert_array_equal(averages["stats"]["net"], 1)


@pytest.mark.slow
def test_without_averages_state_checkpoint_and_step_are_as_they_were(small, tiny_shards, tmp_path):
    state = init_state(SmallSystem(), 0, 3)
    assert list(state.saved()) == ["step", "params", "stats", "opt_state"]
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    step = make_train_step(SmallSystem(), 0, 3, make_mesh(4, 1, jax.devices()[:1]))
    assert "ema" not in step.lower(state, {}, frames, frames).as_text()
    train(config_with(tiny_shards, 0.0, 2), tmp_path)
    with CheckpointManager(tmp_path, read_only=True) as checkpoints:
        assert "ema" not in checkpoints.info(2)


@pytest.mark.slow
def test_the_averages_follow_the_states_of_the_run(small, tiny_shards, tmp_path):
    states, train_step = [], train_module.train_step

    def watched(*arguments):
        states.append(jax.device_get(train_step(*arguments)))
        return jax.device_put(states[-1])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_module, "train_step", watched)
        train(config_with(tiny_shards, 0.5), tmp_path)
    averages = begin(init_state(SmallSystem(), 0, 3).variables)
    for number, state in enumerate(states):
        averages = moved(averages, state.variables, jnp.int32(number), 0.5)
    for ours, expected in zip(jax.tree.leaves(states[-1].ema), jax.tree.leaves(averages), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(states[-1].ema["params"]["conv"], states[-1].params["conv"])


@pytest.mark.slow
def test_a_run_in_two_pieces_is_the_whole_run_bit_for_bit_and_goes_on_after_its_end(small, tiny_shards, tmp_path):
    """The second piece is a run that had ended and was prolonged by its steps, then by its epochs."""
    whole = train(config_with(tiny_shards, 0.5), tmp_path / "whole")
    train(config_with(tiny_shards, 0.5, 2), tmp_path / "parts")
    longer = config_with(tiny_shards, 0.5, 0)
    longer.optim.epochs = 1  # three steps each
    assert int(train(longer, tmp_path / "parts").step) == 3
    longer.optim.epochs = 2
    assert_equal_states(whole, train(longer, tmp_path / "parts"))


@pytest.mark.slow
def test_a_run_that_broke_off_between_two_checkpoints_goes_on_bit_for_bit(small, tiny_shards, tmp_path):
    """Step 4 fails after checkpoint 2, as a kill there would leave it; the same command again makes steps 3 and 4 anew."""
    whole, train_step, made = train(config_with(tiny_shards, 0.5), tmp_path / "whole"), train_module.train_step, []

    def breaks_off(*arguments):
        made.append(arguments)
        if len(made) == 4:
            raise KeyError("killed")
        return train_step(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_module, "train_step", breaks_off)
        with pytest.raises(KeyError):
            train(config_with(tiny_shards, 0.5), tmp_path / "broken")
    assert_equal_states(whole, train(config_with(tiny_shards, 0.5), tmp_path / "broken"))


@pytest.mark.slow
def test_what_was_averaged_is_measured_loaded_and_warned_of_nothing(small, tiny_shards, tmp_path):
    state = train(config_with(tiny_shards, 0.5), tmp_path)
    run = load_run(tmp_path, "last")
    assert_equal_states(run.variables, Variables(**state.ema))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "build", lambda config: SmallSystem())
        held_out = train_module.build_experiment(config_with(tiny_shards, 0.5)).held_out
    logged = [line["test_l1"] for line in read_log(tmp_path) if "test_l1" in line][-1]
    averaged, last = (
        reconstruct(SmallSystem(), variables, held_out, clips=2, frames=2)["l1"]
        for variables in (run.variables, state.variables)
    )
    assert logged == pytest.approx(averaged, rel=1e-6)
    assert abs(averaged - last) > 1e-6


@pytest.mark.slow
def test_averages_begin_in_a_run_that_had_none_and_end_in_one_that_had_them(small, tiny_shards, tmp_path):
    train(config_with(tiny_shards, 0.0, 2), tmp_path)
    with pytest.raises(UserError, match=r"optim\.ema was 0\.0 and is 0\.5"):
        train(config_with(tiny_shards, 0.5, 4), tmp_path)
    state = train(config_with(tiny_shards, 0.5, 4), tmp_path, allow_config_change=True)
    assert_equal_states(load_run(tmp_path, "last").variables, Variables(**state.ema))
    state = train(config_with(tiny_shards, 0.0, 6), tmp_path, allow_config_change=True)
    assert state.ema is None
    assert_equal_states(load_run(tmp_path, "last").variables, state.variables)
    assert_equal_states(load_run(tmp_path / "checkpoints" / "4").variables.params.keys(), state.params.keys())


@pytest.mark.parametrize("decay", [1.0, -0.1, 2.0])
def test_a_decay_that_cannot_be_is_refused(tiny_shards, tmp_path, decay):
    with pytest.raises(UserError, match=r"optim\.ema=.* must be at least 0 and below 1"):
        train(config_with(tiny_shards, decay), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_real_networks_train_with_averages_and_are_exported_with_them(tiny_shards, tmp_path):
    """The real networks: one step, saved, restored for training, and written as a file of the released code."""
    from maskanim_jax.conversion.exporting import export_checkpoint
    from maskanim_jax.serialization.torch_reader import read_tensors

    config = one_step_config(tiny_shards)
    config.optim.ema = 0.5
    config.mask.temperature = config.refine.temperature = 0.1  # the released code has no others
    config.data.driving_invert_prob = 0.0
    state = train(config, tmp_path / "run")
    with CheckpointManager(tmp_path / "run", read_only=True) as checkpoints:
        like = abstract_state(experiment.build(config), 0, 3, 0.5)
        assert_equal_states(checkpoints.restore(1, like, make_mesh(1)), state)
    said = export_checkpoint(tmp_path / "run", tmp_path / "1.pth.tar")
    assert any("averaged weights" in sentence for sentence in said)
    written = [np.asarray(value) for value in read_tensors(tmp_path / "1.pth.tar", 1 << 30)["mask_generator"].values()]
    ours = np.asarray(state.ema["params"]["mask"]["last"]["kernel"]).transpose(3, 2, 0, 1)
    assert any(np.array_equal(array, ours) for array in written)
