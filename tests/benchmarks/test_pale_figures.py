"""The benchmark finds figures on flat backgrounds and tells how well masks show them."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import pale_figures
from benchmarks.pale_figures import clips_of, group_of, iou, silhouettes
from maskanim_jax.errors import UserError


def still(figure, background=0.9, size=32, count=3):
    """Frames of a square in the middle."""
    frames = np.full((count, size, size, 3), background, np.float32)
    frames[:, 8:24, 8:24] = figure
    return frames


@pytest.mark.parametrize(("figure", "group"), [(0.1, "dark"), (0.5, "medium"), (0.75, "pale")])
def test_what_differs_from_a_flat_background_is_the_figure(figure, group):
    found = silhouettes(still(figure))
    assert found.figures.sum() == 3 * 16 * 16
    assert found.figures[:, 8:24, 8:24].all()
    assert group_of(found.brightness) == group


def test_a_clip_without_a_flat_background_or_a_figure_is_left_out():
    noise = np.random.default_rng(0).random((3, 32, 32, 3)).astype(np.float32)
    assert silhouettes(noise) is None
    assert silhouettes(still(0.9)) is None


def test_iou_counts_common_pixels_over_all():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    assert iou(a, b) == 0
    a[:2], b[1:3] = True, True
    assert iou(a, b) == pytest.approx(1 / 3)


def test_frames_are_spread_over_the_clip_and_compared_with_masks(monkeypatch, capsys, tmp_path):
    videos = [(still(0.2, count=9) * 255).astype(np.uint8), (still(0.75, count=2) * 255).astype(np.uint8)]
    split = SimpleNamespace(
        clips=[SimpleNamespace(count=len(video)) for video in videos], frame=lambda clip, index: videos[clip][index]
    )
    assert [len(clip.frames) for clip in clips_of(split, 4)] == [4, 4]
    system = SimpleNamespace(
        name="fake",
        mask_output="mask",
        frame_size=32,
        mask_size=16,
        pose=lambda variables, frames: (frames[:, ::2, ::2, :1] < 0.5).astype(np.float32),  # follows darkness
    )
    run = SimpleNamespace(system=system, variables=None, step=7)
    monkeypatch.setattr(pale_figures, "open_split", lambda data, name: split)
    monkeypatch.setattr(pale_figures, "load_run", lambda path: run)
    pale_figures.main([str(tmp_path / "run"), "--data=shards", "--frames=4", "--thresholds", "0.5"])
    assert "| run, step 7 | 0.5 | 1.00 | 0.00 |" in capsys.readouterr().out

    system.mask_output = None
    with pytest.raises(UserError, match="fake, which has no masks"):
        pale_figures.main([str(tmp_path / "run"), "--data=shards"])
    monkeypatch.setattr(pale_figures, "open_split", lambda data, name: SimpleNamespace(clips=[]))
    with pytest.raises(UserError, match="flat background"):
        pale_figures.main([str(tmp_path / "run"), "--data=shards"])
