"""Is every metric what its definition says, batch by batch, clip by clip?"""

import json

import numpy as np
import pytest
from copier_system import NOTHING, Copier, Split

from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.reconstruction import BATCH, reconstruct
from maskanim_jax.metrics.identity import Identity
from maskanim_jax.metrics.keypoints import Keypoints, compare
from maskanim_jax.metrics.l1 import L1
from maskanim_jax.metrics.psnr import Psnr
from maskanim_jax.metrics.suite import select_metrics
from maskanim_jax.pretrained import backends
from maskanim_jax.pretrained.backends.interface import Embedded, Points


def frames(count, size=16, seed=0):
    return np.random.default_rng(seed).random((count, size, size, 3)).astype(np.float32)


class Corner:
    """A back-end whose one keypoint is the brightest pixel; frames without any pixel above 127 have none. Embeds the mean colour."""

    name, subject, licence = "corner", "face", "none"

    def points(self, given):
        assert given.dtype == np.uint8
        grey = given.max(-1).reshape(len(given), -1)
        y, x = np.unravel_index(grey.argmax(1), given.shape[1:3])
        return Points(np.stack([x, y], -1)[:, None].astype(np.float32), grey.max(1)[:, None] > 127)

    def embed(self, given):
        return Embedded(given.mean((1, 2)), given.max((1, 2, 3)) > 127)


def dots(*places, size=16):
    shown = np.zeros((len(places), size, size, 3), np.float32)
    for frame, place in zip(shown, places, strict=True):
        if place is not None:
            frame[place[1], place[0]] = 1
    return shown


def test_l1_is_the_mean_over_pixels_and_channels():
    true = np.zeros((1, 2, 2, 3), np.float32)
    generated = true.copy()
    generated[0, 0, 0] = (0.3, 0.6, 0.9)
    metric = L1()
    metric.add(generated, true)
    assert metric.finish_clip() == {"l1": pytest.approx((0.3 + 0.6 + 0.9) / 12)}


def test_psnr_of_an_error_of_a_tenth_is_20_db_and_of_none_100():
    metric = Psnr()
    metric.add(np.full((1, 4, 4, 3), 0.6, np.float32), np.full((1, 4, 4, 3), 0.5, np.float32))
    assert metric.finish_clip()["psnr"] == pytest.approx(20, abs=1e-4)
    metric.add(frames(2), frames(2))
    assert metric.finish_clip()["psnr"] == 100


def test_ssim_is_that_of_wang_et_al_computed_window_by_window():
    pytest.importorskip("skimage", reason="scikit-image isn't installed")
    from maskanim_jax.metrics.ssim import Ssim

    true = frames(1, 14)
    generated = np.clip(true * 0.8 + 0.2 * frames(1, 14, seed=1), 0, 1)
    metric = Ssim()
    metric.add(generated, true)
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for x, y in zip(
        generated[0].transpose(2, 0, 1).astype(float), true[0].transpose(2, 0, 1).astype(float), strict=True
    ):
        for i in range(4):
            for j in range(4):
                a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
                both = (window * a * b).sum() - mean_a * mean_b
                low, high = 0.01**2, 0.03**2
                values.append(
                    (2 * mean_a * mean_b + low)
                    * (2 * both + high)
                    / ((mean_a**2 + mean_b**2 + low) * (var_a + var_b + high))
                )
    assert metric.finish_clip()["ssim"] == pytest.approx(np.mean(values), abs=1e-6)


def test_akd_counts_keypoints_found_in_both_and_mkr_those_lost():
    true = Points(np.zeros((2, 3, 2), np.float32), np.array([[True, True, False], [True, False, False]]))
    generated = Points(
        np.array([[[3, 4], [50, 50], [0, 0]], [[0, 1], [9, 9], [9, 9]]], np.float32),
        np.array([[True, False, True], [True, True, False]]),
    )
    counts = compare(generated, true)
    assert counts == (pytest.approx(5 + 1), 2, 1, 3)


def test_akd_and_mkr_are_pooled_over_keypoints_and_name_their_network():
    metric = Keypoints(Corner())
    metric.add(dots((3, 4)), dots((0, 0)))
    assert metric.finish_clip() == {"akd[corner]": pytest.approx(5), "mkr[corner]": 0}
    metric.add(dots((1, 0), (0, 0), None), dots((0, 0), (0, 0), (0, 0)))
    assert metric.finish_clip() == {"akd[corner]": pytest.approx(0.5), "mkr[corner]": pytest.approx(1 / 3)}
    assert metric.overall() == {"akd[corner]": pytest.approx(6 / 3), "mkr[corner]": pytest.approx(1 / 4)}


def test_what_cannot_be_measured_is_absent_instead_of_zero():
    metric = Keypoints(Corner())
    metric.add(dots((1, 1)), dots(None))
    assert metric.finish_clip() == {}
    metric.add(dots(None), dots((1, 1)))
    assert metric.finish_clip() == {"mkr[corner]": 1}


def test_aed_is_a_length_and_csim_a_cosine_of_frames_with_a_face_in_both():
    metric = Identity(Corner())
    true = Embedded(np.array([[3, 0], [1, 1], [5, 5]], np.float32), np.array([True, True, True]))
    generated = Embedded(np.array([[0, 4], [2, 2], [0, 0]], np.float32), np.array([True, True, False]))
    metric.add_embedded(generated, true)
    assert metric.finish_clip() == {
        "aed[corner]": pytest.approx((5 + np.sqrt(2)) / 2),
        "csim[corner]": pytest.approx(0.5),
        "missing[corner]": pytest.approx(1 / 3),
    }


def test_a_body_network_gives_no_csim():
    class Body(Corner):
        subject = "body"

    metric = Identity(Body())
    metric.add(dots((0, 0)), dots((1, 1)))
    assert list(metric.finish_clip()) == ["aed[corner]"]


@pytest.mark.parametrize("make", [L1, Psnr, lambda: Keypoints(Corner()), lambda: Identity(Corner())])
def test_batches_make_no_difference_and_every_frame_weighs_the_same(make):
    generated, true = frames(7), frames(7, seed=1)
    whole, parts = make(), make()
    whole.add(generated, true)
    for i in range(0, 7, 3):
        parts.add(generated[i : i + 3], true[i : i + 3])
    assert whole.finish_clip() == pytest.approx(parts.finish_clip())
    clips = make()
    for part in (slice(0, 2), slice(2, 7)):
        clips.add(generated[part], true[part])
        clips.finish_clip()
    assert clips.overall() == pytest.approx(whole.overall())


def test_reconstruction_has_the_figures_of_each_clip_and_of_all():
    class Counting(Psnr):
        most = 0

        def add(self, generated, true):
            Counting.most = max(Counting.most, len(generated))
            super().add(generated, true)

    figures = reconstruct(Copier(), NOTHING, Split(2, 2 * BATCH + 3), metrics=[Counting()])
    assert Counting.most == BATCH
    first = -20 * np.log10(10 / 255)
    assert figures["clips"][0]["psnr"] == pytest.approx(first, abs=1e-3)
    weights = [clip["frames"] for clip in figures["clips"]]
    assert figures["psnr"] == pytest.approx(np.average([clip["psnr"] for clip in figures["clips"]], weights=weights))


def test_what_is_not_measured_is_said_in_words(tmp_path):
    small = select_metrics(8, cache=tmp_path)
    assert list(small.descriptions) == ["psnr"]
    assert "smaller" in small.not_measured["ssim"]
    assert "smaller" in small.not_measured["lpips"]
    assert "backends" in small.not_measured["akd, mkr, aed, csim"]
    assert "python -m maskanim_jax.weights lpips-alex" in select_metrics(64, cache=tmp_path).not_measured["lpips"]


def test_a_network_of_ones_own_is_named_by_module_and_class():
    chosen = select_metrics(8, ["test_metrics:Corner"])
    assert {"akd[corner]", "mkr[corner]", "aed[corner]", "csim[corner]"} <= set(chosen.descriptions)
    for name in ("nobody", "nowhere:Net", "test_metrics:Missing", "test_metrics:NOTHING"):
        with pytest.raises(UserError, match=name.split(":")[0]):
            backends.make(name)


def test_every_network_without_its_weights_says_how_to_get_them(tmp_path):
    made, reasons = backends.ready(cache=tmp_path)
    assert made == []
    for name, reason in reasons.items():
        assert f"python -m maskanim_jax.weights {name}" in reason


def test_the_command_writes_what_was_measured_and_what_was_not(tmp_path, monkeypatch, capsys):
    from types import SimpleNamespace

    from configs import common
    from maskanim_jax.evaluation import evaluate_run

    split = Split(3)
    split.shards, split.fingerprint = "shards", "print"
    system = Copier()
    object.__setattr__(system, "name", "copier")
    run = SimpleNamespace(system=system, variables=NOTHING, step=3)
    monkeypatch.setattr(evaluate_run, "_load", lambda config, workdir: run)
    monkeypatch.setattr(evaluate_run, "open_data", lambda config, name, process: split)
    monkeypatch.setattr(evaluate_run, "true_silhouettes", lambda config, name: None)
    config = common.get_config()
    config.reconstruct.backends = ("test_metrics:Corner",)
    evaluate_run.reconstruct_test(config, tmp_path)
    written = json.loads((tmp_path / "reconstruction.json").read_text())
    assert set(written["measured"]) == {"l1", "psnr"}
    assert written["psnr"] == written["clips"][0]["psnr"]
    assert "nothing" in written["not_measured"]["akd[corner]"]  # the frames are too dark for Corner
    said = capsys.readouterr().out
    for key in ("ssim", "lpips", "akd[corner]"):
        assert key in written["not_measured"]
        assert f"not measured: {key}" in said
