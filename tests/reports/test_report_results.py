"""Does a run's page start with its result: one sentence, then animations beside their inputs?"""

import json

import numpy as np
import pytest
from html_page import Page
from PIL import Image

from configs import fomm_puppets, puppets
from maskanim_jax.reports.headline import Health, headline, health
from maskanim_jax.reports.run_page import summary, write_report
from maskanim_jax.workdir.logs import MetricWriter

FIGURES = {
    "l1": 0.03,
    "l1_copy_source": 0.06,
    "ratio": 0.5,
    "frames": 8,
    "checkpoint_step": 300,
    "clips": [{"name": "one", "frames": 8, "l1": 0.03, "l1_copy_source": 0.06}],
    "mask": {"mean": 0.4, "std_space": 0.2, "std_time": 0.05},
}


def run(folder, config=puppets, **figures):
    """A workdir with a config and figures."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.get_config().to_dict()))
    (folder / "reconstruction.json").write_text(json.dumps(FIGURES | figures))
    return folder


def animation(folder, *names):
    """Empty videos and a picture for the source, by the names that `--mode=animate` gives."""
    (folder / "inputs").mkdir(parents=True)
    for name in names:
        for path in (f"{name}.mp4", f"{name}.gif", f"{name}-strip.mp4", f"inputs/{name}-driving.mp4"):
            (folder / path).write_bytes(b"")
        Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(folder / "inputs" / f"{name}-source.png")


def page(folder):
    return Page(write_report(folder).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("l1", "words"), [(0.03, "Better than copying the source: on 8 frames of 1 held-out clip"), (0.09, "Not better")]
)
def test_the_first_sentence_sets_the_error_against_copying_the_source(tmp_path, l1, words):
    text = page(run(tmp_path / "run", l1=l1)).text
    assert words in text
    assert "50 % less than the 0.06" in text if l1 < 0.06 else "50 % more than the 0.06" in text
    assert text.index(words) < text.index("Animations")


def test_the_system_says_whether_masks_are_alive(tmp_path):
    mask = FIGURES["mask"]
    alive = page(run(tmp_path / "alive")).text
    assert "the masks have not collapsed: they change by 0.05" in alive
    dead = run(tmp_path / "dead", mask=mask | {"std_time": 0.001})
    found = page(dead)
    assert "but the mask hardly changes between frames" in found.text
    assert "have not collapsed" not in found.text
    assert any("bad" in paragraph.get("class", "") for paragraph in found.all("p"))
    assert "(collapsed)" in summary(dead)
    assert "(not collapsed)" in summary(tmp_path / "alive")


def test_a_system_without_masks_is_not_said_to_have_them_and_its_own_alarms_are_heard(tmp_path):
    folder = run(tmp_path / "run", fomm_puppets)
    figures = {name: value for name, value in FIGURES.items() if name != "mask"}
    (folder / "reconstruction.json").write_text(json.dumps(figures))
    assert "masks" not in headline(folder, figures, health(folder, [], {})).text
    with MetricWriter(folder) as log:
        log.scalars(300, {"loss": 1.0, "keypoint_spread": 0.5, "keypoint_motion": 0.0})
    assert "keypoints do not move" in page(folder).text


def test_a_system_that_cannot_be_asked_gives_figures_and_no_verdict(tmp_path):
    (tmp_path / "config.json").write_text('{"system": "of another version"}')
    found = health(tmp_path, [], FIGURES["mask"])
    assert found == Health(True, None)
    sentence = headline(tmp_path, FIGURES, found)
    assert "the masks change by 0.05" in sentence.text
    assert "alive" not in sentence.text
    assert sentence.good is True


def test_an_animation_stands_beside_its_source_and_driver_and_its_strip_comes_later(tmp_path):
    animation(run(tmp_path / "run") / "animation", "a-by-b")
    found = page(tmp_path / "run")
    sources = [video["src"] for video in found.all("video")]
    assert sources == ["animation/inputs/a-by-b-driving.mp4", "animation/a-by-b.mp4", "animation/a-by-b-strip.mp4"]
    assert any(image.get("alt", "").startswith("source of") for image in found.all("img"))
    assert found.text.index("Animations") < found.text.index("Intermediate pictures") < found.text.index("Curves")
    assert found.text.index("Curves") < found.text.index("Figures") < found.text.index("The whole config")


def test_an_animation_without_inputs_is_shown_alone(tmp_path):
    animation(run(tmp_path / "run") / "animation", "a-by-b")
    for path in (tmp_path / "run/animation/inputs").iterdir():
        path.unlink()
    assert "driver" not in page(tmp_path / "run").text
    assert "a-by-b" in page(tmp_path / "run").text


def test_the_first_minute_comes_before_the_other_animations(tmp_path):
    folder = run(tmp_path / "run")
    animation(folder / "animation", "a-by-b")
    assert "First minute" not in page(folder).text
    (folder / "first_minute").mkdir()
    for name in ("driving.mp4", "out.mp4"):
        (folder / "first_minute" / name).write_bytes(b"")
    Image.new("RGB", (8, 8)).save(folder / "first_minute/source.png")
    (folder / "first_minute/captions.json").write_text('{"out.mp4": "What comes along"}')
    found = page(folder)
    assert [video["src"] for video in found.all("video")][:2] == ["first_minute/driving.mp4", "first_minute/out.mp4"]
    assert found.text.index("What comes along") < found.text.index("Animations")


def test_figures_before_stand_beside_those_after(tmp_path):
    folder = run(tmp_path / "run", ssim=0.9, data_fingerprint="a")
    assert "Before and after" not in page(folder).text
    before = {"label": "untrained", "l1": 0.06, "ssim": 0.95, "mask": {"std_time": 0.001}, "data_fingerprint": "b"}
    (folder / "before.json").write_text(json.dumps(before))
    text = page(folder).text
    for words in ("figure untrained this run", "l1 0.06 0.03 better", "ssim 0.95 0.9 worse", "mask_time 0.001 0.05 "):
        assert words in text
    assert "measured on different data" in text
