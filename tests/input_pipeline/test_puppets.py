"""Are the puppets reproducible, smooth, and consistent with their silhouettes and joints?"""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from input_pipeline.puppets import dataset, draw
from input_pipeline.puppets.dataset import clips, load_truth, render_clip, true_animation, write_dataset
from input_pipeline.puppets.draw import JOINT_NAMES, background, render
from input_pipeline.puppets.identity import LEAST_CONTRAST, distance, draw_identity
from input_pipeline.puppets.pose import Pose, trajectory
from maskanim_jax.errors import UserError

SMALL = {
    "size": 32,
    "train_identities": 2,
    "test_identities": 1,
    "clips_per_identity": 1,
    "frames": 3,
    "seed": 7,
}
JOINT = {name: i for i, name in enumerate(JOINT_NAMES)}


def some(identities=6, size=64):
    """(identity, rendering) of a few figures, each at two moments of its trajectory."""
    for number in range(identities):
        identity, poses = draw_identity(3, number), trajectory(3, number, 24)
        for t in (0, 17):
            yield identity, render(identity, poses[t], size)


def direction(joints, a, b):
    """Angle of the bone from joint a to joint b in the picture, radians."""
    x, y = joints[JOINT[b]] - joints[JOINT[a]]
    return np.arctan2(y, x)


def test_same_seed_draws_the_same_bytes_and_another_seed_does_not():
    def drawn(seed):
        (clip,) = clips("train", 1, 1, 3, seed)
        return [(r.frame.tobytes(), r.silhouette.tobytes(), r.joints.tobytes()) for r in render_clip(clip, 48)]

    first = drawn(5)
    draw._background.cache_clear()
    assert drawn(5) == first
    assert drawn(6) != first


@pytest.mark.subprocess
def test_a_fresh_process_draws_the_same_figures():
    code = "from input_pipeline.puppets.identity import *; from input_pipeline.puppets.pose import *;"
    code += "print(repr((draw_identity(1, 2), trajectory(1, 2, 3))))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == repr((draw_identity(1, 2), trajectory(1, 2, 3)))


def test_train_and_test_share_no_identity_and_no_trajectory():
    train, test = clips("train", 300, 2, 4, 0), clips("test", 300, 2, 4, 0)
    assert not {c.identity for c in train} & {c.identity for c in test}
    assert not {c.name.split("#")[0] for c in train} & {c.name.split("#")[0] for c in test}
    assert len({c.pose for c in train + test}) == len(train + test) == 1200


def test_more_identities_do_not_change_the_ones_there_were():
    assert clips("train", 9, 2, 4, 0)[:6] == clips("train", 3, 2, 4, 0)


def test_a_longer_trajectory_begins_like_a_shorter_one():
    assert trajectory(0, 1, 40)[:10] == trajectory(0, 1, 10)


def test_frame_is_the_background_outside_the_silhouette_and_differs_from_it_inside():
    for identity, r in some():
        difference = np.abs(r.frame.astype(int) - background(identity, 64)).max(axis=2)
        assert difference[r.silhouette == 0].max() == 0
        assert (difference[r.silhouette == 255] > 20).mean() > 0.99


def test_every_colour_of_the_figure_stands_out_from_its_background():
    for number in range(30):
        i = draw_identity(0, number)
        worn = [
            i.skin,
            i.shirt,
            i.trousers,
            i.shoes,
            i.hair,
            i.shirt_texture.colour,
            i.trousers_texture.colour,
        ]
        behind = [i.background.start, i.background.end, *(shape.colour for shape in i.background.shapes)]
        assert min(distance(a, b) for a in worn for b in behind) >= LEAST_CONTRAST


def test_joints_lie_inside_the_frame_and_on_the_silhouette():
    for _, r in some():
        x, y = np.rint(r.joints).astype(int).T
        assert r.joints.shape == (len(JOINT_NAMES), 2)
        assert r.joints.dtype == np.float32
        assert r.joints.min() > 0
        assert r.joints.max() < 63
        assert (r.silhouette[y, x] == 255).all()


def test_head_joint_is_the_middle_of_the_head_with_pixel_centres_at_integers():
    identity = draw_identity(0, 0)
    still = Pose((0.5, 0.55), *[0.0] * 10)
    r = render(identity, still, 128)
    above = int(r.joints[JOINT["head"]][1])  # from here up there is only the head
    rows = r.silhouette[: above + 1].astype(float)
    middle = (rows.sum(axis=0) * np.arange(128)).sum() / rows.sum()
    assert abs(middle - r.joints[JOINT["head"]][0]) < 0.1
    top = above + 1 - rows[:, round(middle)].sum() / 255
    assert abs((r.joints[JOINT["head"]][1] + 0.5 - top) / 128 - identity.head_radius) < 0.3 / 128


@pytest.mark.parametrize("stretched", [3.1, 1.57, 0.0])
def test_figures_stay_inside_the_frame_wherever_a_pose_puts_them(stretched):
    for number in range(12):
        for root in ((0.0, 0.0), (1.0, 1.0), (0.5, 0.6)):
            pose = Pose(root, 0.3, 0.2, stretched, stretched, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            edge = render(draw_identity(2, number), pose, 64).silhouette
            assert max(edge[0].max(), edge[-1].max(), edge[:, 0].max(), edge[:, -1].max()) == 0


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_large_frame_made_smaller_is_the_small_frame(size):
    identity, pose = draw_identity(0, 1), trajectory(0, 1, 6)[5]
    large, small = render(identity, pose, 256), render(identity, pose, size)
    factor = 256 // size
    for whole, part in ((large.frame, small.frame), (large.silhouette, small.silhouette)):
        reduced = np.asarray(Image.fromarray(whole).reduce(factor)).astype(int)
        assert np.abs(reduced - part).mean() < 1.5
    np.testing.assert_allclose((large.joints + 0.5) / factor - 0.5, small.joints, atol=1e-3)


@pytest.mark.parametrize("size", [33, 100, 512])
def test_sizes_that_divide_nothing_work_too(size):
    r = render(draw_identity(0, 0), trajectory(0, 0, 2)[0], size)
    assert r.frame.shape == (size, size, 3)
    assert r.silhouette.shape == (size, size)


@pytest.mark.parametrize("size", [31, 513])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match=str(size)):
        render(draw_identity(0, 0), trajectory(0, 0, 2)[0], size)


def test_silhouettes_are_anti_aliased():
    for _, r in some(2):
        assert len(np.unique(r.silhouette)) > 20


@pytest.mark.slow
def test_motion_is_smooth_and_lively():
    differences, steps = [], []
    for clip in clips("train", 10, 1, 24, 0):
        drawn = list(render_clip(clip, 32))
        joints = np.stack([r.joints for r in drawn]) / 32
        moves = np.linalg.norm(np.diff(joints, axis=0), axis=2)
        assert moves.max() < 0.3  # the fastest hand
        assert moves.mean() < 0.06
        frames = np.stack([r.frame for r in drawn]).astype(float) / 255
        steps.append(np.abs(np.diff(frames, axis=0)).mean())
        differences.append(np.abs(frames[:12] - frames[12:]).mean())
    assert np.mean(differences) > 0.06
    assert np.mean(steps) < 0.6 * np.mean(differences)


def test_figures_fill_a_fifth_of_the_frame():
    shares = [r.silhouette.mean() / 255 for _, r in some(12)]
    assert 0.18 < np.mean(shares) < 0.28


def test_true_animation_has_the_look_of_one_and_the_angles_of_the_other():
    a, b = clips("test", 2, 1, 4, 0)
    answer, driving = list(true_animation(a, b, 64)), list(render_clip(b, 64))
    assert len(answer) == 4
    behind = background(draw_identity(0, a.identity), 64)
    limbs = [
        (f"{s}_{x}", f"{s}_{y}")
        for s in ("left", "right")
        for x, y in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
    ]
    for ours, theirs in zip(answer, driving, strict=True):
        outside = ours.silhouette == 0
        assert (ours.frame[outside] == behind[outside]).all()
        assert (ours.frame != theirs.frame).any(axis=2).mean() > 0.9
        for bone in limbs:
            turn = direction(ours.joints, *bone) - direction(theirs.joints, *bone)
            assert abs(np.sin(turn / 2)) < 1e-3


def test_true_animation_by_itself_is_the_clip():
    (clip,) = clips("train", 1, 1, 3, 1)
    for a, b in zip(true_animation(clip, clip, 32), render_clip(clip, 32), strict=True):
        assert (a.frame == b.frame).all()


def test_data_set_on_disk_is_what_was_drawn(tmp_path):
    root = tmp_path / "new" / "puppets"
    write_dataset(root, **SMALL)
    assert sorted(p.name for p in root.iterdir()) == ["puppets.json", "test", "train", "truth"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["puppets"]
    assert sorted(p.name for p in (root / "train").iterdir()) == ["p0000#0", "p0001#0"]
    assert json.loads((root / "puppets.json").read_text())["fps"] == "12/1"
    (clip,) = clips("test", 1, 1, 3, 7)
    folder = root / "test" / clip.name
    assert json.loads((folder / "clip.json").read_text()) == {"fps": "12/1"}
    truth = load_truth(root, "test", clip.name)
    for t, r in enumerate(render_clip(clip, 32)):
        assert (np.asarray(Image.open(folder / f"{t:06d}.png")) == r.frame).all()
        assert (truth.silhouettes[t] == r.silhouette).all()
        assert (truth.joints[t] == r.joints).all()


def test_same_settings_again_change_nothing_and_other_settings_are_refused(tmp_path):
    root = tmp_path / "puppets"
    write_dataset(root, **SMALL)
    frame = root / "train" / "p0000#0" / "000000.png"
    before = frame.stat().st_mtime_ns
    write_dataset(root, **SMALL)
    with pytest.raises(UserError, match="seed"):
        write_dataset(root, **{**SMALL, "seed": 8})
    assert frame.stat().st_mtime_ns == before
    frame.unlink()
    with pytest.raises(UserError, match="incomplete"):
        write_dataset(root, **SMALL)


def test_a_folder_with_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UserError, match="mine"):
        write_dataset(tmp_path / "mine", **SMALL)
    with pytest.raises(UserError, match=r"notes\.txt"):
        write_dataset(tmp_path / "mine" / "notes.txt", **SMALL)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "_write_clip", stop)
    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "puppets", **SMALL)
    assert not list(tmp_path.iterdir())


def test_output_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_dataset(tmp_path / "file" / "puppets", **SMALL)


def test_missing_or_broken_truth_is_one_sentence(tmp_path):
    write_dataset(tmp_path / "p", **SMALL, truth=False)
    with pytest.raises(UserError, match="p0000#0"):
        load_truth(tmp_path / "p", "train", "p0000#0")
    path = tmp_path / "p" / "truth" / "train" / "p0000#0.npz"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(UserError, match="p0000#0"):
        load_truth(tmp_path / "p", "train", "p0000#0")


@pytest.mark.parametrize("wrong", [{"size": 16}, {"frames": 1}, {"train_identities": 0}, {"seed": -1}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(UserError, match="must be from"):
        write_dataset(tmp_path / "p", **{**SMALL, **wrong})
    assert not list(tmp_path.iterdir())


@pytest.mark.subprocess
def test_the_command_ends_with_0_only_on_success(tmp_path):
    command = [
        sys.executable,
        "-m",
        "input_pipeline.puppets",
        f"--output={tmp_path / 'p'}",
        "--size=32",
        "--frames=2",
    ]
    command += ["--train_identities=1", "--test_identities=1", "--clips_per_identity=1"]
    assert subprocess.run(command, capture_output=True).returncode == 0
    refused = subprocess.run([*command, "--seed=9"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: ")
