"""What remains of a run whose disk is full, read-only or gone? The last good checkpoint, one sentence, and a non-zero status."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_system import SmallSystem
from small_train import small_config

from maskanim_jax.checkpoints import manager
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.errors import UserError
from maskanim_jax.training import experiment
from maskanim_jax.training.loop import train
from maskanim_jax.utils.checksums import check_sums
from maskanim_jax.workdir.logs import MetricWriter

pytestmark = pytest.mark.usefixtures("shared_programs")

HERE = Path(__file__).parent


def disk_config(shards, steps=4):
    config = small_config(shards)
    config.optim.max_steps, config.train.checkpoint_every, config.train.max_to_keep = steps, 1, 100
    config.train.image_every, config.train.num_eval_clips, config.train.eval_frames = 100, 1, 1
    return config


@pytest.fixture(autouse=True)
def small_system(monkeypatch):
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), "Read-only file system"),
        # As TensorStore says it.
        (
            ValueError("UNKNOWN: Error writing: No space left on device"),
            "No space left on device",
        ),
    ],
)
@pytest.mark.slow
def test_a_save_that_fails_leaves_the_checkpoint_before_and_the_run_goes_on_from_it(
    tiny_shards, tmp_path, monkeypatch, error, words
):
    def failing(folder):
        if folder.name.startswith("3"):
            raise error
        write(folder)

    write, folder = manager.write_sums, tmp_path / "checkpoints"
    monkeypatch.setattr(manager, "write_sums", failing)
    with pytest.raises(UserError) as caught:
        train(disk_config(tiny_shards), tmp_path)
    assert f"{folder / '3'} can't be written" in str(caught.value)
    assert words in str(caught.value)
    assert "step 2 is unchanged" in str(caught.value)
    assert names(folder) == ["1", "2"]
    monkeypatch.setattr(manager, "write_sums", write)
    assert int(train(disk_config(tiny_shards), tmp_path).step) == 4


def test_a_folder_that_is_gone_is_not_made_anew(tiny_shards, tmp_path, monkeypatch):
    """As when a disk is unmounted: an empty folder is where the checkpoints were."""
    folder, away = tmp_path / "run" / "checkpoints", tmp_path / "away"
    save = CheckpointManager.save

    def saving(checkpoints, state, info, l1):
        if int(state.step) == 3:
            checkpoints.wait_until_finished()
            folder.rename(away)
            folder.mkdir()
        save(checkpoints, state, info, l1)

    monkeypatch.setattr(CheckpointManager, "save", saving)
    with pytest.raises(UserError, match="the folder has disappeared since the run started"):
        train(disk_config(tiny_shards), tmp_path / "run")
    assert names(folder) == []
    assert names(away) == ["1", "2"]


def full_disk_run():
    """`train` in a process of its own, which ends as the command does."""
    from maskanim_jax.errors import run_main

    experiment.build = lambda config: SmallSystem()
    run_main(lambda: train(disk_config(sys.argv[1], 200), Path(sys.argv[2])) and None)


@pytest.mark.subprocess
def test_on_a_disk_that_is_really_full_the_last_checkpoint_stays_whole(tiny_shards, tmp_path):
    mounted, after = tmp_path / "small", tmp_path / "after"
    mounted.mkdir()
    try_it = ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(mounted)]
    if shutil.which("unshare") is None or subprocess.run(try_it, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk here")
    code = "from test_disk import full_disk_run; full_disk_run()"
    # The disk is seen by this shell and its children only, and goes with them.
    script = 'mount -t tmpfs -o size=900k tmpfs "$1" && "$2" -c "$3" "$4" "$1/run"; status=$?; cp -r "$1/run" "$5"; exit $status'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", mounted, sys.executable, code, tiny_shards, after]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]])}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 2, done.stderr[-2000:]
    sentences = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(sentences) == 1, done.stderr[-2000:]
    assert str(mounted / "run") in sentences[0]
    assert "space" in sentences[0]
    assert "tensorboardX" not in done.stderr  # a thread of TensorStore may say that its event loop is closed
    with CheckpointManager(after, read_only=True) as checkpoints:
        steps = checkpoints.all_steps()
    assert steps
    assert all(check_sums(after / "checkpoints" / str(step)) for step in steps)
    assert int(train(disk_config(tiny_shards, steps[-1] + 1), after).step) == steps[-1] + 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_can_not_be_written_is_a_sentence(tmp_path):
    def run():
        with MetricWriter(tmp_path) as log:
            log._lines.close()
            log._lines = open("/dev/full", "a")  # noqa: SIM115
            log.scalars(1, {"loss": 1.0})

    with pytest.raises(UserError, match=r"log\.jsonl can't be written \(No space"):
        run()


def test_a_picture_that_can_not_be_written_is_a_sentence(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Image.Image, "save", full)
    with (
        pytest.raises(UserError, match=r"masks_0000001\.png can't be written \(No space"),
        MetricWriter(tmp_path) as log,
    ):
        log.pictures(1, {"masks": np.zeros((4, 4, 3), np.uint8)})
    assert not list((tmp_path / "pictures").iterdir())


def test_a_tensorboard_that_can_not_be_written_is_a_sentence_and_no_endless_wait(tmp_path, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def run():
        with MetricWriter(tmp_path) as log:
            log._board.file_writer.event_writer._ev_writer.write_event = full
            for step in range(1, 600):  # more than the queue holds
                log.scalars(step, {"loss": 1.0})
                time.sleep(0.1)

    with pytest.raises(UserError, match=r"tensorboard can't be written \(No space"):
        run()
    assert "Traceback" not in capsys.readouterr().err
