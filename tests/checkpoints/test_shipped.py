"""Does the bundled checkpoint animate at once, does it match its card, and is damage detected?"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny import tiny_config

import maskanim_jax
from maskanim_jax.checkpoints.loading import bundled, load_run, saved_config
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import read_image
from maskanim_jax.video.reader import open_frames
from scripts import pack_checkpoint

ROOT = Path(__file__).parents[2]
HERE = bundled.FOLDER / "puppets"


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the bundled folder that a test may damage."""
    shutil.copytree(HERE, tmp_path / "shipped" / "puppets")
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "shipped")
    return tmp_path / "shipped" / "puppets"


def test_it_is_small_and_its_card_has_figures_hashes_and_versions():
    card = bundled.describe("puppets")
    assert (HERE / bundled.VARIABLES).stat().st_size <= 10 << 20
    assert sum(path.stat().st_size for path in HERE.iterdir()) <= 11 << 20
    for file, wanted in card["sha256"].items():
        assert hashlib.sha256((HERE / file).read_bytes()).hexdigest() == wanted
    measured = card["figures"]["reconstruction"]
    assert measured["l1"] < measured["l1_copy_source"]
    assert measured["checkpoint_step"] == card["step"]
    assert card["figures"]["truth"]["rows"]


@pytest.mark.parametrize("name", bundled.names())
def test_it_names_no_path_of_the_machine_that_packed_it(name):
    for file in (bundled.CARD, bundled.CONFIG):
        assert not re.findall(
            r"""(?<![\w.<])/(?:root|home|work|Users|tmp)\b[^"]*""", (bundled.FOLDER / name / file).read_text()
        )


def test_it_loads_by_its_name_and_a_folder_of_that_name_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = load_run(Path("puppets"))
    assert run.step == bundled.describe("puppets")["step"]
    assert saved_config(Path("puppets")).frame_size == run.system.frame_size == 128
    assert maskanim_jax.load("puppets").step == run.step
    (tmp_path / "puppets").mkdir()
    with pytest.raises(UserError, match=r"config\.json"):
        load_run(Path("puppets"))


@pytest.mark.subprocess
def test_it_animates_the_example_and_moves_the_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = (
        "from maskanim_jax.animate import main;"
        "main(['--checkpoint=puppets', '--source=puppets', '--driving=puppets', '--output=out.mp4'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    still = read_image(HERE / bundled.SOURCE).astype(float)
    with open_frames(Path("out.mp4")) as video, open_frames(HERE / bundled.DRIVING) as driving:
        frames = np.stack(list(video)).astype(float)
        assert len(frames) == len(list(driving))
        assert video.fps == driving.fps
    assert frames.std(0).mean() > 4  # the figure moves
    corners = np.s_[:8, :8]
    assert np.abs(frames[:, *corners] - still[corners]).mean() < 12  # before the source's own background


@pytest.mark.parametrize("file", [bundled.VARIABLES, bundled.CONFIG])
def test_a_changed_byte_is_noticed(copied, file):
    content = bytearray((copied / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / file).write_bytes(content)
    with pytest.raises(UserError, match=r"SHA-256.*install maskanim_jax again"):
        bundled.load("puppets")


@pytest.mark.parametrize("file", [bundled.VARIABLES, bundled.CONFIG, bundled.CARD])
def test_a_missing_file_is_a_sentence(copied, file):
    (copied / file).unlink()
    with pytest.raises(UserError, match=file.replace(".", r"\.")):
        bundled.load("puppets")


def test_variables_of_another_config_are_a_sentence(copied):
    config = json.loads((copied / bundled.CONFIG).read_text())
    config["mask"]["width"] += 1
    (copied / bundled.CONFIG).write_text(json.dumps(config))
    card = json.loads((copied / bundled.CARD).read_text())
    card["sha256"][bundled.CONFIG] = hashlib.sha256((copied / bundled.CONFIG).read_bytes()).hexdigest()
    (copied / bundled.CARD).write_text(json.dumps(card))
    with pytest.raises(UserError, match="variables of its config"):
        bundled.load("puppets")


@pytest.mark.slow
def test_what_is_packed_is_what_is_read(tmp_path, monkeypatch):
    import jax

    from maskanim_jax.checkpoints import loading
    from maskanim_jax.systems import build

    config = tiny_config()
    system = build(config)
    run = LoadedRun(config, system, jax.jit(system.init)(jax.random.key(1)), 4)
    monkeypatch.setattr(loading, "load_run", lambda workdir: run)
    with pytest.raises(UserError, match=r"reconstruction\.json"):
        pack_checkpoint.pack(tmp_path, "tiny", tmp_path / "out")
    (tmp_path / "reconstruction.json").write_text(json.dumps({"checkpoint_step": 3}))
    with pytest.raises(UserError, match="measure again"):
        pack_checkpoint.pack(tmp_path, "tiny", tmp_path / "out")
    missing = {"lpips": f"lpips-alex isn't in {tmp_path}"}
    (tmp_path / "reconstruction.json").write_text(
        json.dumps({"checkpoint_step": 4, "l1": 0.1, "clips": [1], "not_measured": missing})
    )
    config.init_from, config.data.shards = str(tmp_path / "runs/mine"), str(tmp_path / "data/tiny")
    pack_checkpoint.pack(tmp_path, "tiny", tmp_path / "out")
    monkeypatch.setattr(bundled, "FOLDER", tmp_path / "out")
    written = [(tmp_path / "out/tiny" / file).read_text() for file in (bundled.CARD, bundled.CONFIG)]
    assert not any(str(tmp_path) in text for text in written)
    assert (json.loads(written[1])["init_from"], json.loads(written[1])["data"]["shards"]) == ("runs/mine", "data/tiny")
    again = bundled.load("tiny")
    assert again.step == 4
    stored = bundled.describe("tiny")["stored"]
    assert stored["parameters"] == "float16"
    assert stored["frame_difference"] <= 1
    close = partial(np.testing.assert_allclose, rtol=2**-11, atol=1e-7)
    jax.tree.map(close, again.variables.params, run.variables.params)
    jax.tree.map(np.testing.assert_array_equal, again.variables.stats, run.variables.stats)
    own = (tmp_path / "out/tiny" / bundled.SOURCE).read_bytes()
    monkeypatch.setattr(pack_checkpoint, "LARGEST_DIFFERENCE", -1)
    pack_checkpoint.pack(tmp_path, "tiny", tmp_path / "out", start="driver")
    assert (tmp_path / "out/tiny" / bundled.SOURCE).read_bytes() != own
    assert bundled.describe("tiny")["examples"] == {"source_pose": "driver"}
    assert bundled.describe("tiny")["stored"]["parameters"] == "float32"
    jax.tree.map(np.testing.assert_array_equal, bundled.load("tiny").variables, run.variables)
    assert "clips" not in bundled.describe("tiny")["figures"]["reconstruction"]
    assert {path.name for path in (tmp_path / "out" / "tiny").iterdir()} == {
        *(bundled.VARIABLES, bundled.CONFIG, bundled.CARD, bundled.SOURCE, bundled.DRIVING)
    }


@pytest.mark.subprocess
def test_it_is_found_where_the_package_lies(tmp_path):
    """As in a wheel: the package copied to another place, run from a third."""
    shutil.copytree(
        ROOT / "maskanim_jax", tmp_path / "place" / "maskanim_jax", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copytree(ROOT / "configs", tmp_path / "place" / "configs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "input_pipeline", tmp_path / "place" / "input_pipeline", ignore=shutil.ignore_patterns("__pycache__")
    )
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "place")}
    code = "import maskanim_jax; print(maskanim_jax.__file__, maskanim_jax.load('puppets'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, cwd=tmp_path, env=env, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert str(tmp_path / "place") in done.stdout
    assert "<perturbed_masks of step" in done.stdout


@pytest.mark.subprocess
def test_the_reader_needs_nothing_heavy():
    spec = importlib.util.find_spec("maskanim_jax.checkpoints.bundled")
    code = "import sys, maskanim_jax.checkpoints.bundled; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert spec is not None
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
