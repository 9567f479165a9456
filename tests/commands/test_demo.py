"""Does the demo's command complete all steps, shrunk to seconds: draw, train, reconstruct, animate, report?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shrunk import SHRUNK

from maskanim_jax.animate import main as animate
from maskanim_jax.video.reader import open_frames
from maskanim_jax.workdir.logs import read_log

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def run(*arguments, **options):
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=600, **options)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(what the command printed, its workdir)."""
    folder = tmp_path_factory.mktemp("demo")
    settings = [f"--config.{name}={value}" for name, value in SHRUNK.items()]
    done = run(
        "maskanim_jax.main",
        f"--config={ROOT / 'configs/demo.py'}:scratch",
        "--workdir=out",
        "--mode=all",
        f"--config.data.shards={folder / 'shards'}",
        *settings,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout, folder / "out"


@pytest.mark.subprocess
def test_it_says_at_the_end_where_to_look_and_what_it_reached(demo):
    last = demo[0].strip().splitlines()[-8:]
    assert "report.html; videos are in out/reconstruction and out/animation." in last[-2]
    # After twenty steps of tiny networks, any other verdict would be wrong.
    assert last[-1].startswith("The driver was NOT followed")
    for figure in ("loss_coarse", "loss_fine", "held-out L1", "copying the source", "over time", "IoU"):
        assert figure in "".join(last)


@pytest.mark.subprocess
def test_the_loss_falls(demo):
    losses = [line["loss_coarse"] + line["loss_fine"] for line in read_log(demo[1]) if "loss" in line]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


@pytest.mark.subprocess
def test_it_leaves_figures_videos_and_a_page(demo):
    workdir = demo[1]
    figures = json.loads((workdir / "reconstruction.json").read_text())
    assert figures["frames"] == 2 * 5  # two clips of six frames, the first of each is the source
    assert figures["checkpoint_step"] in (10, 20)
    assert len(figures["data_fingerprint"]) == 64
    assert {clip["name"] for clip in figures["clips"]} == {"p5000#0", "p5001#0"}
    assert 0 < figures["mask"]["iou"] < 1
    for clip in ("reconstruction/p5000#0.mp4", "animation/p5000#0-by-p5001#0.mp4"):
        with open_frames(workdir / clip) as frames:
            assert len(list(frames)) in (5, 6)
            assert frames.fps == 12
    assert (workdir / "animation/p5000#0-by-p5001#0.gif").stat().st_size
    assert {row["variant"] for row in json.loads((workdir / "truth.json").read_text())["rows"]} >= {"full"}
    page = (workdir / "report.html").read_text()
    for wanted in ("loss_coarse", "held_out", "untrained", "temperature is 0.3"):
        assert wanted in page


@pytest.mark.subprocess
def test_the_animate_command_takes_the_demos_checkpoint(demo, tmp_path):
    driving = tmp_path / "driving"
    driving.mkdir()
    from PIL import Image

    for i in range(3):
        Image.fromarray(np.full((40, 50, 3), 60 * i, np.uint8)).save(driving / f"{i}.png")
    Image.fromarray(np.full((70, 60, 3), 90, np.uint8)).save(tmp_path / "source.png")
    status = animate([
        f"--checkpoint={demo[1]}", f"--source={tmp_path / 'source.png'}", f"--driving={driving}",
        f"--output={tmp_path / 'out'}/", "--threshold=100", "--mask_scale=0.9", "--ablation=no_ref",
    ])  # fmt: skip
    assert status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "clip.json",
    ]


@pytest.mark.subprocess
def test_reconstructing_again_writes_over_the_first_result(demo):
    """The released code dies when its folder exists."""
    settings = [f"--config.{name}={value}" for name, value in SHRUNK.items()]
    shards = json.loads((demo[1] / "config.json").read_text())["data"]["shards"]
    before = (demo[1] / "reconstruction.json").read_text()
    done = run(
        "maskanim_jax.main",
        f"--config={ROOT / 'configs/demo.py'}:scratch",
        f"--workdir={demo[1]}",
        "--mode=reconstruct",
        f"--config.data.shards={shards}",
        *settings,
        env=dict(os.environ),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith(f"videos are in {demo[1]}/reconstruction.")
    assert (demo[1] / "reconstruction.json").read_text() == before
