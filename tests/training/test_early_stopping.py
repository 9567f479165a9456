"""Does a run end when the held-out L1 has not fallen for `optim.patience` steps, and only then?"""

import pytest
from small_system import SmallSystem
from states import assert_equal_states
from tiny import tiny_config

from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.errors import UserError
from maskanim_jax.training import experiment
from maskanim_jax.training import loop as train_module
from maskanim_jax.training.loop import train
from maskanim_jax.workdir.logs import read_log

L1 = {2: 0.5, 4: 0.3, 6: 0.4, 8: 0.35, 10: 0.31, 12: 0.2}
"""The held-out L1 of each evaluated step; the lowest of the first five is that of step 4."""


@pytest.fixture
def run(tiny_shards, monkeypatch):
    """Trains a small system whose held-out L1 is that of the table above."""
    measured = []
    reconstruct = train_module.reconstruct

    def scripted(*args, **settings):
        return reconstruct(*args, **settings) | {"l1": L1[measured[-1]]}

    evaluate = train_module._evaluate_and_save

    def watched(run, state, step):
        measured.append(step)
        evaluate(run, state, step)

    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    monkeypatch.setattr(train_module, "reconstruct", scripted)
    monkeypatch.setattr(train_module, "_evaluate_and_save", watched)

    def trained(workdir, patience, max_steps=12):
        config = tiny_config(tiny_shards)
        config.optim.patience, config.optim.max_steps = patience, max_steps
        return train(config, workdir)

    return trained


def texts(workdir):
    return [line["text"] for line in read_log(workdir) if "text" in line]


def test_a_run_ends_when_the_error_has_not_fallen_for_that_many_steps(run, tmp_path):
    stopped = run(tmp_path / "stopped", patience=4)
    assert int(stopped.step) == 8
    assert_equal_states(stopped, run(tmp_path / "whole", patience=0, max_steps=8))
    assert any("has not fallen below 0.3 (step 4) for 4 steps" in text for text in texts(tmp_path / "stopped"))
    assert texts(tmp_path / "stopped")[-1].startswith("finished at step 8 of 12")
    with CheckpointManager(tmp_path / "stopped", read_only=True) as checkpoints:
        assert checkpoints.best_step() == 4


def test_without_patience_a_run_goes_on_to_its_last_step(run, tmp_path):
    assert int(run(tmp_path, patience=0).step) == 12
    assert not any("patience" in text for text in texts(tmp_path))


def test_a_run_that_goes_on_falling_is_not_ended(run, tmp_path):
    assert int(run(tmp_path, patience=10).step) == 12


def test_a_resumed_run_ends_at_the_same_step(run, tmp_path):
    run(tmp_path, patience=4, max_steps=6)
    assert int(run(tmp_path, patience=4).step) == 8


def test_an_ended_run_started_again_stays_and_with_more_patience_goes_on(run, tmp_path):
    run(tmp_path, patience=4)
    assert int(run(tmp_path, patience=4).step) == 8
    assert int(run(tmp_path, patience=10).step) == 12


def test_a_negative_patience_is_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"config\.optim\.patience=-1"):
        run(tmp_path / "none", patience=-1)
    assert not (tmp_path / "none").exists()
