"""Are the authors' panels cropped correctly, and do numbers and sentences describe their content?"""

import csv
import json
from fractions import Fraction

import numpy as np
import pytest

from maskanim_jax import evaluate_published
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import published, published_order
from maskanim_jax.evaluation.published import evaluate_set
from maskanim_jax.evaluation.published_panels import CHUNK, EDGE, METHODS, PANELS, find_sets, read_panels
from maskanim_jax.metrics.background import MARGIN, background, otsu
from maskanim_jax.metrics.bootstrap import interval
from maskanim_jax.pretrained.backends.interface import Embedded, Points
from maskanim_jax.video.writer import VideoWriter

SIDE = 64
ERRORS = {"X2Face": 16, "Monkey-Net": 12, "FOMM": 8, "coarse": 4, "fine": 0}


class Blob:
    """Its keypoint is the middle of what is bright; its embedding the mean colour."""

    name, subject, licence = "blob", "body", "none"

    def points(self, frames):
        bright = frames.min(-1) > 150
        y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
        counts = np.maximum(bright.sum((1, 2)), 1)
        where = np.stack([(bright * x).sum((1, 2)) / counts, (bright * y).sum((1, 2)) / counts], -1)
        return Points(where[:, None].astype(np.float32), bright.any((1, 2))[:, None])

    def embed(self, frames):
        return Embedded(frames.mean((1, 2)).astype(np.float32), np.ones(len(frames), bool))


class Blind(Blob):
    name = "blind"

    def points(self, frames):
        where, found = super().points(frames)
        return Points(where, found & False)

    def embed(self, frames):
        return Embedded(np.zeros((len(frames), 3), np.float32), np.zeros(len(frames), bool))


def square(x, shade=255, ground=40):
    picture = np.full((SIDE, SIDE, 3), ground, np.uint8)
    picture[28:40, x : x + 12] = shade
    return picture


def panel_video(path, count=4):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, Fraction(10)) as writer:
        for i in range(count):
            panels = dict.fromkeys(PANELS, square(8 + i))
            panels |= {"source": square(8), "source mask": square(8, ground=0)}
            panels |= {"driving mask": square(8 + i, ground=0), "driving": square(8 + i, shade=230)}
            panels |= {method: square(8 + i + error, ground=40 + error) for method, error in ERRORS.items()}
            writer.write(np.concatenate([panels[name] for name in PANELS], axis=1))
    return path


def test_panels_are_cut_without_their_edges_and_frames_are_evenly_spread(tmp_path):
    (panels,) = read_panels(panel_video(tmp_path / "a.mp4"), 2)
    assert list(panels) == list(PANELS)
    assert panels["fine"].shape == (2, SIDE - 2 * EDGE, SIDE - 2 * EDGE, 3)
    where = Blob().points(panels["driving"]).where[:, 0, 0]
    np.testing.assert_allclose(where, np.array([9, 11]) + 5.5 - EDGE, atol=0.5)  # frames 1 and 3 of 4


def test_a_long_video_is_read_a_few_frames_at_a_time(tmp_path):
    chunks = list(read_panels(panel_video(tmp_path / "a.mp4", count=2 * CHUNK + 1), 1000))
    assert [len(chunk["fine"]) for chunk in chunks] == [CHUNK, CHUNK, 1]


def test_figures_measure_pose_against_the_driver_and_the_rest_against_the_source(tmp_path):
    paths = [panel_video(tmp_path / f"{name}.mp4") for name in "ab"]
    figures = evaluate_set("set", paths, [Blob(), Blind()], frames=4)
    assert figures.unused == ["blind"]
    assert sorted(figures.clips) == ["a", "b"]
    for method, error in ERRORS.items():
        clip = figures.clips["a"][method]
        assert clip["akd[blob]"] == pytest.approx(error, abs=0.7)
        assert clip["mkr[blob]"] == 0
        assert clip["background_l1"] == pytest.approx(error / 255, abs=0.02)
        assert "csim[blob]" not in clip
    assert all(
        "is reproduced" in text and "not reproduced" not in text for text in figures.sentences() if "mkr" not in text
    )
    assert published.as_text(figures).count("\n") > 4


def test_sets_are_folders_and_other_files_are_no_videos(tmp_path):
    panel_video(tmp_path / "one" / "a.mp4", 1)
    panel_video(tmp_path / "two" / "b.mp4", 1)
    (tmp_path / "two" / "notes.txt").write_text("no video")
    assert {name: [path.name for path in paths] for name, paths in find_sets(tmp_path).items()} == {
        "one": ["a.mp4"],
        "two": ["b.mp4"],
    }
    assert list(find_sets(tmp_path / "one")) == ["one"]
    for folder in (tmp_path / "absent", tmp_path / "two" / "notes.txt"):
        with pytest.raises(UserError, match=folder.name):
            find_sets(folder)


def test_a_video_of_another_layout_is_refused(tmp_path):
    with VideoWriter(tmp_path / "plain.mp4", Fraction(10)) as writer:
        writer.write(np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(UserError, match=r"plain\.mp4 has frames of 64 x 64 pixels"):
        next(read_panels(tmp_path / "plain.mp4", 1))


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    for name in "ab":
        panel_video(tmp_path / "in" / "Vox" / f"{name}.mp4")
    out = tmp_path / "out"
    evaluate_published.main(
        [str(tmp_path / "in"), f"--output={out}", "--frames=2", "--backends", "test_evaluate_published:Blob"]
    )
    said = capsys.readouterr().out
    written = json.loads((out / "published.json").read_text())
    assert written["networks"]["blob"] == {"licence": "none", "proxy": True}
    table = written["sets"]["Vox"]["table"]
    assert set(table) == {"akd[blob]", "mkr[blob]", "aed[blob]", "background_l1"}
    rows = list(csv.DictReader((out / "published.csv").open()))
    assert len(rows) == len(table) * len(METHODS)
    first = next(row for row in rows if row["metric"] == "akd[blob]" and row["method"] == "FOMM")
    assert float(first["mean"]) == table["akd[blob]"]["FOMM"]["mean"]
    for sentence in written["sets"]["Vox"]["sentences"]:
        assert sentence in said
    with pytest.raises(UserError, match="frames=0"):
        evaluate_published.main([str(tmp_path), "--frames=0"])


def test_a_turned_order_is_said_with_its_figures():
    right = {"fine": [1.0, 2], "FOMM": [2.0, 3], "Monkey-Net": [3.0, 4], "X2Face": [4.0, 5]}
    said = published_order.sentence("Taichi", "akd[x]", right)
    assert "X2Face) is reproduced; of 2 clips" in said
    assert "speaks for Perturbed Masks" in said
    turned = {**right, "fine": [2.5, 3.5]}
    said = published_order.sentence("Vox", "akd[x]", turned)
    assert "is not reproduced: Perturbed Masks is not ahead of FOMM: 3 against 2.5" in said
    assert "Table 1 also" in said
    assert "speaks against" in said
    assert "FOMM and Monkey-Net are level at 2.5" in published_order.sentence(
        "Taichi", "akd[x]", {**right, "Monkey-Net": [2.0, 3]}
    )
    assert "Table 1" not in published_order.sentence("Taichi", "akd[x]", turned)
    assert "not reproduced" in published_order.sentence("Vox", "csim[x]", right, higher_is_better=True)


def test_the_background_is_far_from_both_subjects():
    one, other = np.zeros((2, 80, 80), np.uint8)
    one[40:44, 20:24] = 200
    other[40:44, 50:54] = 90
    where = background(one, other)
    assert otsu(one) < 200
    assert not where[42, 20 - MARGIN]
    assert where[42, 20 - MARGIN - 1]
    assert not where[42, 53 + MARGIN]
    assert where[5, 5]


def test_an_interval_holds_the_mean_repeats_with_its_seed_and_shrinks_with_clips():
    values = np.random.default_rng(0).normal(5, 1, 100)
    few, many = interval(values[:10]), interval(values)
    assert few == interval(values[:10])
    assert few.low < few.mean < few.high
    assert many.high - many.low < few.high - few.low
    assert many.high - many.low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.15)
    assert interval([3.0]) == (3, 3, 3)
