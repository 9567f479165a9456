"""Does every bad input end in one clear sentence with the path, a non-zero exit, and nothing lost?

Each reader's messages have their own tests; here the commands are run as a user runs them.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from small_system import SmallSystem
from tiny import tiny_config

from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.errors import UserError
from maskanim_jax.training import experiment
from maskanim_jax.training.loop import train

ROOT = Path(__file__).parents[2]
DEMO = f"--config={ROOT / 'configs/demo.py'}"
PREPARE, MAIN, ANIMATE = "input_pipeline.prepare", "maskanim_jax.main", "maskanim_jax.animate"


def fails(*arguments: str, saying: str) -> str:
    """Runs a command that must fail with one sentence; returns what it said."""
    done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert saying in done.stderr + done.stdout
    return done.stderr + done.stdout


@pytest.mark.subprocess
def test_an_empty_folder_cannot_be_prepared(tmp_path):
    said = fails(PREPARE, f"--input={tmp_path}", f"--output={tmp_path / 'shards'}", "--size=64", saying=str(tmp_path))
    assert len([line for line in said.splitlines() if line.startswith("error:")]) == 1
    assert not (tmp_path / "shards").exists()


@pytest.mark.subprocess
def test_a_config_without_shards_says_how_to_make_them(tmp_path):
    said = fails(
        MAIN,
        f"--config={ROOT / 'configs/taichi.py'}",
        f"--workdir={tmp_path / 'run'}",
        "--config.data.shards=nowhere",
        saying="nowhere",
    )
    assert "input_pipeline.prepare" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("flags", "saying"),
    [
        ([DEMO], "--workdir is missing"),
        (["--workdir=x"], "--config is missing"),
        ([DEMO, "--workdir=x", "--mode=dance"], "dance"),
        ([DEMO, "--workdir=x", "--config.optim.learning_rat=1"], "learning_rat"),
        ([DEMO, "--workdir=x", "--nonsense=1"], "nonsense"),
        (["--config=configs/nothing.py", "--workdir=x"], "nothing.py"),
    ],
    ids=lambda value: None if isinstance(value, list) else value,
)
def test_a_wrong_flag_of_the_main_command(flags, saying):
    fails(MAIN, *flags, saying=saying)


def test_an_unwritable_workdir(tmp_path, tiny_shards):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="can't be written"):
        train(tiny_config(tiny_shards), tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.parametrize("kind", ["missing", "file", "empty folder", "no checkpoint"])
def test_a_checkpoint_folder_that_is_not_one(kind, tmp_path):
    path = tmp_path / "run"
    if kind == "file":
        path.write_text("x")
    elif kind != "missing":
        path.mkdir()
    if kind == "no checkpoint":
        (path / "config.json").write_text(tiny_config().to_json())
    with pytest.raises(UserError, match="run"):
        load_run(path)


@pytest.mark.subprocess
def test_animate_names_the_checkpoint_that_is_none(tmp_path):
    from PIL import Image

    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    fails(
        ANIMATE,
        f"--checkpoint={tmp_path / 'none'}",
        f"--source={tmp_path / 'a.png'}",
        f"--driving={tmp_path / 'a.png'}",
        f"--output={tmp_path / 'o.mp4'}",
        saying=str(tmp_path / "none"),
    )
    assert not (tmp_path / "o.mp4").exists()


def test_frames_of_another_size_than_the_configs(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards)
    config.frame_size, config.loss.pyramid_sizes, config.loss.coarse_pyramid_sizes = 64, (64,), (64,)
    with pytest.raises(UserError, match="--size=64"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_shard_cut_short_names_the_shard_and_leaves_the_workdir_alone(tiny_shards, tmp_path):
    import shutil

    copy = tmp_path / "shards"
    shutil.copytree(tiny_shards, copy)
    shard = next(path for path in sorted(copy.iterdir()) if "train" in path.name and "array_record" in path.name)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=shard.name):
        train(tiny_config(copy), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_other_data_in_the_same_place_are_not_trained_on(tiny_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "build", lambda config: SmallSystem())
    config = tiny_config(tiny_shards)
    config.optim.max_steps = 2
    train(config, tmp_path / "run")
    other = tiny_config(tmp_path / "other")
    from input_pipeline.from_config import ensure_shards

    changed = tiny_config(tmp_path / "other")
    changed.data.puppets.train_identities = 5  # the same drawing and seed, and fewer puppets
    ensure_shards(changed)
    with pytest.raises(UserError, match="trained with other data"):
        train(other, tmp_path / "run")


@pytest.mark.subprocess
@pytest.mark.parametrize(
    "module",
    [
        MAIN,
        ANIMATE,
        PREPARE,
        "input_pipeline.inspect",
        "maskanim_jax.convert",
        "maskanim_jax.weights",
        "maskanim_jax.report",
        "input_pipeline.puppets",
    ],
)
def test_every_command_has_help_and_exits_with_zero(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "--" in done.stdout
