"""Does reconstruction follow the paper's protocol, and are its metrics correct?"""

import numpy as np
import pytest
from copier_system import NOTHING, Copier, Split
from tiny import tiny_config

from maskanim_jax.evaluation.reconstruction import BATCH, reconstruct, reconstruct_clip
from maskanim_jax.metrics.mask_iou import MaskIoU
from maskanim_jax.systems import build


def test_the_first_frame_is_the_source_and_all_others_are_reconstructed():
    figures = reconstruct(Copier(), NOTHING, Split(3, 2 * BATCH + 3))
    assert [clip["frames"] for clip in figures["clips"]] == [2, 2 * BATCH + 2]
    assert figures["clips"][0]["l1"] == pytest.approx((10 + 20) / 2 / 255, rel=1e-5)


def test_every_frame_has_the_same_weight_in_the_overall_figure():
    figures = reconstruct(Copier(), NOTHING, Split(2, 4))
    assert figures["l1"] == pytest.approx(np.mean([10, 10, 20, 30]) / 255, rel=1e-5)
    assert figures["frames"] == 4


def test_copying_the_source_has_a_ratio_of_one():
    assert reconstruct(Copier(), NOTHING, Split(5))["ratio"] == pytest.approx(1)


def test_a_clip_of_one_frame_has_nothing_to_reconstruct():
    assert reconstruct(Copier(), NOTHING, Split(1))["l1"] is None
    assert [clip["name"] for clip in reconstruct(Copier(), NOTHING, Split(1, 2))["clips"]] == ["c1"]


def test_frames_are_read_a_batch_at_a_time():
    split = Split(100)
    stream = reconstruct_clip(Copier(), NOTHING, (split.frame(0, i) for i in range(100)))
    next(stream)
    assert split.read <= 1 + BATCH


def test_how_alive_a_mask_is():
    mask = reconstruct(Copier(), NOTHING, Split(3))["mask"]
    assert mask["std_space"] == pytest.approx(0, abs=1e-6)
    assert mask["std_time"] == pytest.approx(5 / 255, rel=1e-4)


@pytest.mark.parametrize("inverted", [False, True])
def test_a_mask_that_is_the_silhouette_has_an_iou_of_one_in_either_sign(inverted):
    true = np.zeros((2, 8, 8), np.float32)
    true[:, 2:6, 2:4] = 1
    small = true.reshape(2, 4, 2, 4, 2).mean((2, 4)) * 0.6 + 0.1
    overlap = MaskIoU()
    overlap.add(1 - small if inverted else small, true)
    best = overlap.best()
    assert best["iou"] == 1
    assert best["iou_inverted"] is inverted


def test_dead_masks_raise_an_alarm_in_words():
    collapse_warnings = build(tiny_config()).collapse_warnings
    assert collapse_warnings({"mask_mean": 0.3, "mask_space": 0.2, "mask_time": 0.1}) == []
    assert "collapsed" in collapse_warnings({"mask_mean": 1.0, "mask_space": 0.001, "mask_time": 0.0})[0]
    assert "no pose" in collapse_warnings({"mask_mean": 0.5, "mask_space": 0.2, "mask_time": 0.001})[0]
