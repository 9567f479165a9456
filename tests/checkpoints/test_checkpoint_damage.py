"""Is a damaged checkpoint detected before it is used, with an error that says what to do?"""

import json
import shutil

import jax
import numpy as np
import pytest
from small_system import SmallSystem
from small_train import small_config

from maskanim_jax.checkpoints import manager
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.errors import UserError
from maskanim_jax.training import experiment
from maskanim_jax.training.loop import train
from maskanim_jax.utils.checksums import SUMS, CorruptFileError, check_sums, write_sums
from maskanim_jax.workdir.logs import read_log

pytestmark = pytest.mark.usefixtures("shared_programs")


@pytest.fixture(autouse=True)
def small_system(monkeypatch):
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    monkeypatch.setattr("maskanim_jax.checkpoints.loading.build", lambda config: SmallSystem())


def config_of(shards, steps):
    config = small_config(shards)
    config.optim.max_steps, config.train.checkpoint_every, config.train.max_to_keep = steps, 1, 3
    config.train.num_eval_clips = config.train.eval_frames = 1
    config.train.image_every = 100
    return config


@pytest.fixture(scope="module")
def saved(tiny_shards, tmp_path_factory):
    """A run with checkpoints of steps 1, 2 and 3."""
    workdir = tmp_path_factory.mktemp("damage") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(experiment, "build", lambda config: SmallSystem())
        train(config_of(tiny_shards, 3), workdir)
    return workdir


@pytest.fixture
def run(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def largest(folder):
    return max((path for path in (folder / "state").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(path):
    bits = bytearray(path.read_bytes())
    bits[len(bits) // 2] ^= 1
    path.write_bytes(bits)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def test_every_checkpoint_has_the_sums_of_all_its_files(saved):
    for step in (1, 2, 3):
        folder = saved / "checkpoints" / str(step)
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        listed = {line.split("  ", 1)[1] for line in (folder / SUMS).read_text().splitlines()}
        assert listed == files - {SUMS}
        assert check_sums(folder)


@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()])
def test_damage_is_named_nothing_is_trained_and_the_checkpoint_before_is_offered(run, tiny_shards, damage):
    bad = largest(run / "checkpoints" / "3")
    damage(bad)
    log = (run / "log.jsonl").read_bytes()
    with pytest.raises(UserError) as caught:
        train(config_of(tiny_shards, 4), run)
    assert str(bad) in str(caught.value)
    assert f"--workdir={run} --restore_step=2" in str(caught.value)
    assert (run / "log.jsonl").read_bytes() == log
    with pytest.raises(UserError, match="can't be restored"):
        load_run(run, "last")


def test_each_file_of_a_checkpoint_is_watched(run):
    folder = run / "checkpoints" / "2"
    listed = [path for path in folder.rglob("*") if path.is_file() and path.name != SUMS]
    for path in [path for path in listed if path.stat().st_size]:
        whole = path.read_bytes()
        flip(path)
        with pytest.raises(CorruptFileError, match=path.name):
            check_sums(folder)
        path.write_bytes(whole)
    assert check_sums(folder)


def test_an_offered_checkpoint_is_a_whole_one(run):
    for step in (2, 3):
        flip(largest(run / "checkpoints" / str(step)))
    with CheckpointManager(run, read_only=True) as checkpoints, pytest.raises(UserError, match="--restore_step=1`"):
        checkpoints.info(3)
    flip(largest(run / "checkpoints" / "1"))
    with (
        CheckpointManager(run, read_only=True) as checkpoints,
        pytest.raises(UserError, match="there is no intact checkpoint before it"),
    ):
        checkpoints.info(3)


def test_a_run_goes_on_from_the_checkpoint_that_was_offered_and_keeps_the_damaged_one(run, saved, tiny_shards):
    flip(largest(run / "checkpoints" / "3"))
    state = train(config_of(tiny_shards, 3), run, restore_step=2)
    assert (run / "set_aside" / "3" / SUMS).exists()
    with CheckpointManager(saved, read_only=True) as checkpoints:
        before = checkpoints.restore_variables(3, jax.eval_shape(SmallSystem().init, jax.random.key(0)))
    np.testing.assert_array_equal(np.asarray(state.params["conv"]), np.asarray(before.params["conv"]))
    steps = [line["step"] for line in read_log(run) if "loss" in line]
    assert steps == [1, 2, 3]
    assert any("was moved to" in line.get("text", "") for line in read_log(run))


def test_a_step_that_is_not_there_is_a_sentence(run, tiny_shards):
    with pytest.raises(UserError, match=r"no checkpoint of step 7: give one of 1, 2, 3"):
        train(config_of(tiny_shards, 4), run, restore_step=7)


def test_a_checkpoint_of_an_older_version_is_used_and_the_log_says_that_nothing_was_checked(run, tiny_shards):
    folder = run / "checkpoints" / "3"
    (folder / SUMS).unlink()
    info = json.loads((folder / "info" / "metadata").read_text())
    del info["sums"]
    (folder / "info" / "metadata").write_text(json.dumps(info))
    train(config_of(tiny_shards, 4), run)
    assert any("its files were not verified" in line.get("text", "") for line in read_log(run))


def test_a_list_of_sums_that_is_gone_or_garbled_is_damage(run):
    path = run / "checkpoints" / "3" / SUMS
    text = path.read_text()
    path.unlink()
    with pytest.raises(UserError, match=f"{SUMS} is missing"):
        load_run(run, "last")
    for garbled in (text[:-1], "", "<html>\n", text.replace("  ", " ")):
        path.write_text(garbled)
        with pytest.raises(UserError, match="not the list of checksums"):
            load_run(run, "last")


def test_the_best_checkpoint_is_not_chosen_by_a_damaged_measurement(run):
    path = run / "checkpoints" / "2" / "metrics" / "metrics"
    path.write_text('{"l1": 0.0}')
    with CheckpointManager(run, read_only=True) as checkpoints, pytest.raises(UserError, match=str(path)):
        checkpoints.best_step()


def test_an_array_that_is_otherwise_on_the_disk_than_in_memory_ends_the_run_and_nothing_is_pruned(
    tiny_shards, tmp_path, monkeypatch
):
    def wrong(path, like):
        read = original(path, like)
        if path.name.startswith("4"):
            read["params"]["conv"] = np.nextafter(read["params"]["conv"], 2)
        return read

    original = manager.read_back
    monkeypatch.setattr(manager, "read_back", wrong)
    with pytest.raises(UserError, match=r"checkpoints/4 can't be written.*conv.*step 3 is unchanged"):
        train(config_of(tiny_shards, 4), tmp_path / "run")
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir() if path.is_dir())
    assert names == ["1", "2", "3"]


def test_what_a_killed_run_left_is_swept_and_never_taken_for_a_checkpoint(run):
    folder = run / "checkpoints"
    for name in ("4.part", "1.old", "5.part.orbax-checkpoint-tmp-0"):
        shutil.copytree(folder / "3", folder / name)
    with CheckpointManager(run, read_only=True) as checkpoints:
        assert checkpoints.all_steps() == [1, 2, 3]
    with CheckpointManager(run) as checkpoints:
        assert checkpoints.all_steps() == [1, 2, 3]
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["1", "2", "3"]


def test_two_trainings_of_one_workdir_are_refused_while_reading_is_not(run):
    with CheckpointManager(run):
        with pytest.raises(UserError, match="another process trains there"):
            CheckpointManager(run)
        with CheckpointManager(run, read_only=True) as reader:
            assert reader.latest_step() == 3
    with CheckpointManager(run):
        pass


def test_sums_are_those_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    write_sums(tmp_path)
    assert (tmp_path / SUMS).read_text() == ("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  a\n")
