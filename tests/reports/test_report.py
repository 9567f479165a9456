"""Does the page show a workdir's contents, say what is missing, and stay intact with hostile names?"""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.reports.run_page import write_report
from maskanim_jax.workdir.logs import MetricWriter


def page(workdir, output=None):
    return Page(write_report(workdir, output).read_text(encoding="utf-8"))


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    with MetricWriter(folder) as log:
        for step in (100, 200, 300):
            values = {
                "loss/fine": 900 / step,
                "mask_std_time": 0.1,
                "learning_rate/m": 2e-4,
                "steps_per_second": 2.0,
            }
            log.scalars(step, values)
            log.pictures(step, {"masks": np.full((4, 6, 3), step % 256, np.uint8)})
    config = {"name": "puppets", "reference": "released", "frame_size": 64, "loss": {"vgg": "imagenet"}}
    figures = {
        "l1": 0.0412,
        "l1_copy_source": 0.0824,
        "ratio": 0.5,
        "clips": [{"name": "clip-one", "frames": 8, "l1": 0.03, "l1_copy_source": 0.06}],
        "mask": {"mean": 0.4, "std_space": 0.2, "std_time": 0.05},
        "checkpoint_step": 300,
        "frames": 8,
    }
    for name, content in {"config": config, "reconstruction": figures}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    for name in (
        "reconstruction/clip-one.mp4",
        "animation/a b.mp4",
        "animation/a b.gif",
        "animation/only.gif",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    return folder


def test_an_empty_workdir_gives_a_page_that_says_what_is_missing(tmp_path):
    text = page(tmp_path).text
    for sentence in (
        "no config.json",
        "Nothing has been reconstructed",
        "no animations yet",
        "no videos of reconstructed clips yet",
        "No pictures",
        "Nothing has been logged",
    ):
        assert sentence in text


def test_the_page_has_the_figures_the_reading_and_the_settings(workdir):
    text = page(workdir).text
    for expected in ("puppets", "authors' released code", "0.0412", "0.0824", "clip-one", '"frame_size": 64'):
        assert expected in text


def test_curves_are_grouped_and_drawn_from_their_highest_to_their_lowest(workdir):
    found = page(workdir)
    for heading in (
        "Losses loss/fine 3",
        "Masks mask_std_time",
        "Learning rates learning_rate/m",
        "Speed steps_per_second",
    ):
        assert heading in found.text
    assert found.all("polyline")[0]["points"] == "0.0,0.0 150.0,90.0 300.0,120.0"


def test_figures_group_by_what_they_are_of_whatever_the_system(tmp_path):
    with MetricWriter(tmp_path) as log:
        log.scalars(1, {"loss_gan": 1.0, "keypoint_spread": 0.5, "prediction_l1": 0.1, "keypoint_motion": 0.2})
    text = page(tmp_path).text
    assert "Losses loss_gan" in text
    assert text.index("loss_gan") < text.index("prediction_l1") < text.index("Keypoints keypoint_spread")
    assert text.index("Keypoints keypoint_spread") < text.index("keypoint_motion")


def test_a_value_that_is_not_finite_breaks_the_curve(tmp_path):
    with MetricWriter(tmp_path) as log:
        for step, loss in enumerate([3.0, 2.0, float("nan"), 1.0, 2.0]):
            log.scalars(step, {"loss": loss})
    assert [len(line["points"].split()) for line in page(tmp_path).all("polyline")] == [2, 2]


def test_a_long_curve_is_thinned(tmp_path):
    lines = (json.dumps({"step": step, "time": 0.0, "loss": 1.0}) for step in range(5000))
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + "\n")
    assert 200 < len(page(tmp_path).all("polyline")[0]["points"].split()) <= 300


def test_pictures_are_inside_the_page_and_videos_are_linked_from_where_it_lies(workdir, tmp_path):
    found = page(workdir, tmp_path / "elsewhere" / "page.html")
    pictures = [image["src"] for image in found.all("img") if image["src"].startswith("data:image/png")]
    assert len(pictures) == 3  # the last one, and two earlier ones
    assert [video["src"] for video in found.all("video")] == [
        "../run/animation/a%20b.mp4",
        "../run/reconstruction/clip-one.mp4",
    ]
    assert "../run/animation/only.gif" in [image["src"] for image in found.all("img")]


def test_the_page_loads_nothing_from_the_network(workdir):
    assert not re.search(r"https?://|<script [^>]*src|<link|@import|fetch\(", write_report(workdir).read_text())


def test_the_time_line_keeps_the_first_and_the_last_picture(tmp_path):
    (tmp_path / "pictures").mkdir()
    for step in range(0, 5000, 100):
        Image.new("RGB", (2, 2)).save(tmp_path / "pictures" / f"masks_{step:07d}.png")
    steps = re.findall(r"step (\d+)", page(tmp_path).text)
    assert steps[:2] == ["4900", "0"]
    assert len(steps) <= 7


def test_names_are_escaped_wherever_they_come_from(workdir):
    evil = '<script>alert("1")</script>'
    clip = {"name": evil, "frames": evil, "l1": evil, "l1_copy_source": 0}
    (workdir / "reconstruction.json").write_text(json.dumps({"l1": evil, "clips": [clip], "checkpoint_step": evil}))
    (workdir / "config.json").write_text(json.dumps({"name": evil, "system": evil, "reference": evil}))
    (workdir / "departures.json").write_text(json.dumps([evil]))
    (workdir / "animation" / "<img src=x onerror=alert(1)>.gif").write_bytes(b"")
    with MetricWriter(workdir, 300) as log:
        log.scalars(301, {evil: 1.0})
        log.text(301, evil)
    found = page(workdir)
    assert len(found.all("script")) == 1  # the page's own
    assert not any("onerror" in attributes for _, attributes in found.tags)
    assert found.text.count(evil) >= 6


def test_untrained_vgg_is_said_in_words(workdir):
    assert "VGG-19 is untrained" not in page(workdir).text
    (workdir / "config.json").write_text(json.dumps({"loss": {"vgg": "untrained"}}))
    assert "VGG-19 is untrained" in page(workdir).text


def test_departures_from_the_paper_are_listed(workdir):
    (workdir / "departures.json").write_text(json.dumps(["The mask loss starts at step 500."]))
    assert "The mask loss starts at step 500." in page(workdir).text


def test_a_damaged_file_is_named_and_the_rest_is_shown(workdir):
    (workdir / "reconstruction.json").write_text('{"l1": 0.')
    text = page(workdir).text
    assert "reconstruction.json can't be read" in text
    assert "loss/fine" in text


def test_a_workdir_that_is_none_and_an_output_that_can_not_be_written_are_one_sentence(workdir, tmp_path):
    with pytest.raises(UserError, match="absent"):
        write_report(tmp_path / "absent")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--output"):
        write_report(workdir, tmp_path / "file" / "page.html")


@pytest.mark.subprocess
def test_the_command_exits_with_2_and_one_line_on_bad_input(tmp_path):
    command = [sys.executable, "-m", "maskanim_jax.report", "--workdir", str(tmp_path / "absent")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
