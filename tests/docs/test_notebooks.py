"""Do the notebooks run completely, as a reader would run them, on the small config?"""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from shrunk import SHRUNK

from maskanim_jax.checkpoints.bundled import names

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LIGHTER = {"train.log_every": 2, "loss.vgg_layers": ["relu1_1"], "num_cpu_devices": 1, "train.num_eval_clips": 1}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells(path, kind="code"):
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def run(name, folder, **parameters):
    """(what it printed, what it displayed by kind)."""
    done = subprocess.run(
        [sys.executable, ROOT / "tests/helpers/run_notebook.py", ROOT / "notebooks" / name, json.dumps(parameters)],
        capture_output=True,
        text=True,
        timeout=1200,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    text, _, shown = done.stdout.rpartition("displayed:")
    return text, json.loads(shown)


def test_there_are_two():
    assert [path.name for path in NOTEBOOKS] == ["animate.ipynb", "train.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs_and_installs_from_one_address(path):
    whole = json.loads(path.read_text(encoding="utf-8"))
    assert (whole["nbformat"], whole["nbformat_minor"]) == (4, 5)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(path))
    assert len({cell["id"] for cell in whole["cells"]}) == len(whole["cells"])
    code = "\n".join("".join(cell["source"]) for cell in cells(path))
    command = '%pip install --quiet --constraint no_older_than.txt "maskanim_jax @ git+{REPOSITORY}"'
    assert re.findall(r"%pip .*", code) == [command]
    assert [cell["metadata"].get("tags") for cell in cells(path)].count(["parameters"]) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_pip_gets_every_installed_version_as_a_lower_bound(path, tmp_path, monkeypatch):
    (install,) = ("".join(cell["source"]) for cell in cells(path) if "%pip" in "".join(cell["source"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(install.replace("%pip", "ran = 'pip'  # %pip"), {})
    bounds = [Requirement(line) for line in (tmp_path / "no_older_than.txt").read_text().splitlines()]
    assert {"jax", "numpy"} <= {bound.name for bound in bounds}
    for bound in bounds:
        assert bound.specifier.contains(version(bound.name).split("+")[0], prereleases=True), bound


@pytest.mark.subprocess
@pytest.mark.skipif("puppets" not in names(), reason="no checkpoint comes with this copy")
def test_the_shipped_model_is_animated_and_its_masks_are_shown(tmp_path):
    _, shown = run("animate.ipynb", tmp_path)
    assert shown["Video"] == 2  # the driver and the result
    assert shown["Image"] >= 5  # the picture, strips, options, frame by frame
    assert (tmp_path / "animation.mp4").stat().st_size > 0


@pytest.mark.subprocess
def test_a_small_model_is_trained_measured_and_shown(tmp_path):
    settings = {name: value for name, value in SHRUNK.items() if not name.startswith(("optim.", "frame_size"))}
    text, shown = run("train.ipynb", tmp_path, STEPS=4, SIZE=32, SETTINGS=settings | LIGHTER)
    assert re.search(r"loss \d.* at step 4", text)
    assert "copying the source" in text
    assert shown == {"Html": 1, "Video": 3, "Picture": 1}
    assert {"config.json", "log.jsonl", "report.html", "reconstruction.json"} <= {
        path.name for path in (tmp_path / "runs/notebook").iterdir()
    }
