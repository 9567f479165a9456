"""Is a run a pure function of config, seed and data: resumed, killed, on one device or on eight?"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from small_system import SmallSystem
from states import assert_equal_states, leaves
from tiny import one_step_config, tiny_config

from input_pipeline.pairs import PairStream
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.distributed.sharding import make_mesh, shard_batch
from maskanim_jax.errors import UserError
from maskanim_jax.systems.train_state import init_state
from maskanim_jax.training import experiment
from maskanim_jax.training import loop as train_module
from maskanim_jax.training.loop import train, train_step
from maskanim_jax.training.metric_window import MetricAccumulator
from maskanim_jax.training.prefetch import prefetch
from maskanim_jax.training.step import make_train_step
from maskanim_jax.workdir.logs import read_log

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("shared_programs")]

HELPERS = Path(__file__).parents[1] / "helpers"


made = []
"""The jitted step of each run that `whole` made."""


@pytest.fixture(scope="module")
def whole(tiny_shards, tmp_path_factory):
    """A run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    original = train_module.make_train_step
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_module, "make_train_step", lambda *args: made.append(original(*args)) or made[-1])
        return train(tiny_config(tiny_shards), workdir), workdir


def test_nothing_is_compiled_again_after_the_first_step_nor_when_r_starts(whole):
    first_of_r = tiny_config().refine.start_epoch * 3 + 1  # three steps an epoch
    assert 1 < first_of_r < int(whole[0].step)
    assert [step._cache_size() for step in made] == [1]


def test_the_log_says_how_long_the_first_step_took_and_what_the_cache_had(whole):
    lines = [line["text"] for line in read_log(whole[1]) if line["step"] == 1 and "text" in line]
    assert any(re.match(r"first step after [\d.]+ s \(compile cache (cold|warm|off), ", line) for line in lines), lines


def test_a_run_leaves_checkpoints_log_pictures_and_config(whole):
    state, workdir = whole
    assert int(state.step) == 6
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        assert checkpoints.latest_step() == 6
        assert len(checkpoints.all_steps()) <= 3
    log = read_log(workdir)
    names = {name for line in log for name in line}
    assert {
        "loss",
        "loss_coarse",
        "loss_fine",
        "loss_mask",
        "mask_mean",
        "mask_space",
        "mask_time",
        "learning_rate_mask",
    } <= names
    assert {"steps_per_second", "data_wait_share", "test_l1", "test_l1_copy_source", "test_mask_iou"} <= names
    assert list((workdir / "pictures").glob("*.png"))
    assert list((workdir / "tensorboard").iterdir())
    assert "parameters:" in json.dumps(log)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(whole, tiny_shards, tmp_path, monkeypatch):
    assert_equal_states(whole[0], train(tiny_config(tiny_shards), tmp_path / "again"))
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    states = []
    for seed in (0, 1):
        config = tiny_config(tiny_shards)
        config.seed = seed
        states.append(leaves(train(config, tmp_path / f"seed{seed}")))
    assert any(not np.array_equal(a, b) for a, b in zip(*states, strict=True))


def test_a_run_in_two_pieces_is_the_whole_run_bit_for_bit(whole, tiny_shards, tmp_path):
    first = tiny_config(tiny_shards)
    first.optim.max_steps = 2
    train(first, tmp_path)
    assert_equal_states(whole[0], train(tiny_config(tiny_shards), tmp_path))
    steps = [line["step"] for line in read_log(tmp_path) if "loss" in line]
    assert steps == [2, 4, 6]


@pytest.mark.subprocess
def test_a_killed_run_goes_on_to_the_same_parameters_bit_for_bit(whole, tiny_shards, tmp_path):
    """SIGKILL as soon as the first checkpoint is there, wherever the run then is; then the same command again."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path; from tiny import tiny_config; from maskanim_jax.training.loop import train\n"
        "train(tiny_config(sys.argv[2]), Path(sys.argv[3]))"
    )
    command = [sys.executable, "-c", code, str(HELPERS), str(tiny_shards), str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 1800  # of a busy machine; a run that hangs shall not hang the tests
    try:
        while not (tmp_path / "checkpoints" / "2").exists():
            assert process.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert_equal_states(whole[0], train(tiny_config(tiny_shards), tmp_path))


def test_a_finished_run_started_again_is_left_as_it_is(whole, tiny_shards):
    before = sorted((whole[1] / "checkpoints").iterdir())
    assert_equal_states(whole[0], train(tiny_config(tiny_shards), whole[1]))
    assert sorted((whole[1] / "checkpoints").iterdir()) == before


@pytest.mark.subprocess
@pytest.mark.parametrize("native", ["1", "0"])
def test_eight_devices_give_the_gradients_and_statistics_of_one_to_rounding(tiny_shards, tmp_path, native):
    """Adam's first moments after one step are the gradients; parameters would show rounding noise in sensitive directions only."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import jax, numpy as np; from pathlib import Path; from tiny import one_step_config; from maskanim_jax.training.loop import train\n"
        "assert jax.device_count() == 8\n"
        "state = train(one_step_config(sys.argv[2]), Path(sys.argv[3]))\n"
        "np.savez(sys.argv[3] + '/leaves.npz', *[np.asarray(leaf) for leaf in jax.tree.leaves((state.stats, state.opt_state))])"
    )
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    env = os.environ | {"XLA_FLAGS": flags, "MASKANIM_NATIVE": native}
    command = [sys.executable, "-c", code, str(HELPERS), str(tiny_shards), str(tmp_path / "eight")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    one = train(one_step_config(tiny_shards), tmp_path / "one")
    eight = np.load(tmp_path / "eight" / "leaves.npz")
    losses = [[line["loss"] for line in read_log(tmp_path / name) if "loss" in line] for name in ("one", "eight")]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    ours = leaves((one.stats, one.opt_state))
    largest = max(np.linalg.norm(a) for a in ours if a.size > 1)
    for a, b in zip(ours, eight.values(), strict=True):
        # The sign in the gradient of an absolute difference is not continuous: where rounding turns it, 1 % is not reached by far.
        assert np.linalg.norm(a - b) <= 0.01 * np.linalg.norm(a) + 1e-6 * largest


@pytest.mark.parametrize("depth", [0, 2])
def test_a_step_copies_nothing_unasked(depth):
    """Batches go to the devices explicitly; frames that are still on the host are refused."""
    system, mesh = SmallSystem(), make_mesh(4, 1, jax.devices()[:1])
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    step, state, window = make_train_step(system, 0, 10, mesh), init_state(system, 0, 10), MetricAccumulator(system, 10)
    placed = prefetch(iter([frames] * 4), lambda batch: (shard_batch(mesh, batch),) * 2, depth)
    for _ in range(4):
        state = train_step(step, state, {}, placed, window)
    assert set(window.flush(4)) >= {"loss", "steps_per_second", "data_wait_share"}
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train_step(step, state, {}, iter([(frames, frames)]), window)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_batches_made_ahead_keep_their_order_and_an_error_comes_in_its_turn(depth):
    def read():
        yield from range(4)
        raise UserError("a shard is damaged")

    placed = prefetch(read(), lambda batch: batch * 10, depth)
    assert [next(placed) for _ in range(4)] == [0, 10, 20, 30]
    with pytest.raises(UserError, match="a shard is damaged"):
        next(placed)
    assert list(prefetch(iter(range(3)), float, depth)) == [0.0, 1.0, 2.0]


def test_closing_ends_the_thread_and_leaves_the_reader_to_be_closed():
    def read():
        try:
            yield from range(1000)
        finally:
            ended.append(threading.active_count())

    ended, before, batches = [], threading.active_count(), read()
    placed = prefetch(batches, lambda batch: batch, 2)
    assert next(placed) == 0
    assert threading.active_count() == before + 1
    placed.close()
    assert (threading.active_count(), ended) == (before, [])
    batches.close()
    assert ended == [before]


def test_half_precision_trains_with_finite_losses_and_float32_parameters(tiny_shards, tmp_path):
    config = one_step_config(tiny_shards)
    config.precision, config.optim.max_steps = "bfloat16", 2
    state = train(config, tmp_path)
    assert {leaf.dtype for leaf in leaves(state.params)} == {np.dtype(np.float32)}
    assert np.isfinite([line["loss"] for line in read_log(tmp_path) if "loss" in line]).all()


def test_a_workdir_of_another_config_is_refused_and_left_alone(whole, tiny_shards):
    other = tiny_config(tiny_shards)
    other.coarse.width = 4
    before = (whole[1] / "config.json").read_text()
    with pytest.raises(UserError, match=r"another config.*coarse\.width was 8 and is 4"):
        train(other, whole[1])
    assert (whole[1] / "config.json").read_text() == before


def test_a_run_can_be_loaded_for_animation(whole):
    state, workdir = whole
    run = load_run(workdir, "last")
    assert run.step == 6
    assert_equal_states(run.variables.params, state.params)
    assert load_run(workdir / "checkpoints" / "6").step == 6


def test_a_damaged_checkpoint_is_a_sentence(whole, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(whole[1], copy)
    for path in (copy / "checkpoints" / "6" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="can't be restored"):
        load_run(copy / "checkpoints" / "6")


def test_a_shard_that_disappears_is_a_sentence_and_what_was_learned_is_kept(tiny_shards, tmp_path, monkeypatch):
    shards, workdir = tmp_path / "shards", tmp_path / "run"
    shutil.copytree(tiny_shards, shards)
    config = tiny_config(shards)
    config.optim.max_steps, config.train.log_every, config.train.checkpoint_every = 500, 100, 500
    config.train.image_every, config.data.num_threads, config.data.prefetch = 500, 0, 0
    config.data.puppets.train_identities = 0  # or they would be drawn again
    original, made = PairStream.batches, []

    def batches(stream, start_step=0):
        for batch in original(stream, start_step):
            yield batch
            made.append(batch)
            if len(made) == 3:
                for path in shards.glob("*train.array_record*"):
                    path.unlink()

    monkeypatch.setattr(PairStream, "batches", batches)
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    with pytest.raises(UserError, match=r"train\.array_record"):
        train(config, workdir)
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        assert checkpoints.all_steps() == [len(made)]
    assert 3 <= len(made) < 500
