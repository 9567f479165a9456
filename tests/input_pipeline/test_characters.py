"""Do puppets of version 2 differ in body shape, stay recognisable, and keep the guarantees of version 1?"""

import hashlib

import numpy as np
import pytest
from PIL import Image

from input_pipeline.puppets.character import LEAST_CONTRAST, draw_character
from input_pipeline.puppets.dataset import clips, identity_of, load_truth, render_clip, true_animation, write_dataset
from input_pipeline.puppets.draw import JOINT_NAMES, background, render
from input_pipeline.puppets.identity import distance, draw_identity
from input_pipeline.puppets.pose import Pose, trajectory
from maskanim_jax.errors import UserError

PAIRS = 80
JOINT = {name: i for i, name in enumerate(JOINT_NAMES)}
LIMBS = [
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
]


@pytest.fixture(scope="module")
def pairs():
    """Renderings of two random characters in one random pose, at 64 pixels."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(PAIRS):
        a, b = (int(n) for n in rng.choice(1000, 2, replace=False))
        pose = trajectory(0, int(rng.integers(1000)), 24)[int(rng.integers(24))]
        found.append(tuple(render(draw_character(0, number), pose, 64) for number in (a, b)))
    return found


def some(size=64):
    """(character, rendering) of a few figures, each at two moments of its trajectory."""
    for number in range(12):
        character, poses = draw_character(3, number), trajectory(3, number, 24)
        for t in (0, 17):
            yield character, render(character, poses[t], size)


def test_the_same_pose_has_its_joints_4_pixels_apart_between_two_builds(pairs):
    apart = [np.linalg.norm(a.joints - b.joints, axis=1).mean() for a, b in pairs]
    assert np.median(apart) >= 4


def test_builds_differ_in_proportions_and_not_only_in_size_and_place(pairs):
    apart = []
    for a, b in pairs:
        one, other = (r.joints - r.joints.mean(0) for r in (a, b))
        scale = (one * other).sum() / (other * other).sum()
        apart.append(np.linalg.norm(one - scale * other, axis=1).mean())
    assert np.median(apart) >= 2


def test_the_same_pose_covers_other_pixels(pairs):
    covered = [(a.silhouette > 127, b.silhouette > 127) for a, b in pairs]
    assert np.median([(a & b).sum() / (a | b).sum() for a, b in covered]) <= 0.7


def test_version_1_is_drawn_bit_for_bit_as_before_there_was_a_version_2():
    (old,) = clips("test", 1, 1, 2, 0)
    first = next(render_clip(old, 64))
    drawn = hashlib.sha256(first.frame.tobytes() + first.silhouette.tobytes() + first.joints.tobytes()).hexdigest()
    assert drawn == "b0bab8474947bada66843277e4b0487fcd1ef2b1acdb253afb46f964ebc28904"
    assert identity_of(old) == draw_identity(0, 5000)


def test_limbs_have_the_angles_of_the_pose_whatever_the_build():
    a, b = clips("validation", 2, 1, 4, 0, version=2)
    for ours, theirs in zip(true_animation(a, b, 64), render_clip(b, 64), strict=True):
        assert (ours.frame != theirs.frame).any(axis=2).mean() > 0.5
        for start, end in LIMBS:
            (x, y), (u, v) = (r.joints[JOINT[end]] - r.joints[JOINT[start]] for r in (ours, theirs))
            assert abs(np.sin((np.arctan2(y, x) - np.arctan2(v, u)) / 2)) < 1e-3


def test_frame_is_the_background_outside_the_silhouette_and_differs_from_it_inside():
    for character, r in some():
        difference = np.abs(r.frame.astype(int) - background(character, 64)).max(axis=2)
        assert difference[r.silhouette == 0].max() == 0
        assert (difference[r.silhouette == 255] > 20).mean() > 0.97


def test_every_colour_stands_out_from_its_background():
    for number in range(20):
        character = draw_character(0, number)
        b = character.background
        behind = [b.start, b.end, *(shape.colour for shape in b.shapes)]
        assert min(distance(a, c) for a in character.colours.values() for c in behind) >= LEAST_CONTRAST


def test_joints_lie_inside_the_frame_and_the_figure_does_not_touch_its_edge():
    for number in range(12):
        for root in ((0.0, 0.0), (1.0, 1.0), (0.5, 0.6)):
            for stretched in (3.1, 1.57):
                pose = Pose(root, 0.3, 0.2, stretched, stretched, *[0.0] * 6)
                r = render(draw_character(2, number), pose, 64)
                edge = r.silhouette
                assert max(edge[0].max(), edge[-1].max(), edge[:, 0].max(), edge[:, -1].max()) == 0
                assert r.joints.min() > 0
                assert r.joints.max() < 63


def test_joints_lie_on_the_figure():
    on = [r.silhouette[tuple(np.rint(r.joints).astype(int).T[::-1])] > 127 for _, r in some()]
    assert np.mean(on) > 0.99


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_large_frame_made_smaller_is_the_small_frame(size):
    character, pose = draw_character(0, 1), trajectory(0, 1, 6)[5]
    large, small = render(character, pose, 256), render(character, pose, size)
    for whole, part in ((large.frame, small.frame), (large.silhouette, small.silhouette)):
        reduced = np.asarray(Image.fromarray(whole).reduce(256 // size)).astype(int)
        assert np.abs(reduced - part).mean() < 1.5
    np.testing.assert_allclose((large.joints + 0.5) * size / 256 - 0.5, small.joints, atol=1e-3)


def test_the_same_seed_draws_the_same_bytes_and_another_seed_does_not():
    def drawn(seed):
        (clip,) = clips("train", 1, 1, 2, seed, version=2)
        return [r.frame.tobytes() for r in render_clip(clip, 48)]

    assert drawn(5) == drawn(5)
    assert drawn(6) != drawn(5)


def test_three_splits_share_no_identity_and_no_trajectory():
    splits = [clips(split, 300, 2, 4, 0, version=2) for split in ("train", "validation", "test")]
    people = [{c.identity for c in split} for split in splits]
    assert not people[0] & people[1]
    assert not people[1] & people[2]
    assert not people[0] & people[2]
    assert len({c.pose for split in splits for c in split}) == 1800


def test_an_unknown_version_is_refused():
    with pytest.raises(UserError, match="version"):
        clips("train", 1, 1, 4, 0, version=3)


def test_a_validation_split_lies_beside_the_others(tmp_path):
    settings = {"size": 32, "train_identities": 1, "test_identities": 1, "clips_per_identity": 1, "frames": 2}
    write_dataset(tmp_path / "p", **settings, seed=0, validation_identities=1, version=2)
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == [
        "puppets.json",
        "test",
        "train",
        "truth",
        "validation",
    ]
    (clip,) = clips("validation", 1, 1, 2, 0, version=2)
    drawn = [r.joints for r in render_clip(clip, 32)]
    assert np.array_equal(load_truth(tmp_path / "p", "validation", clip.name).joints, drawn)
    for other in ({"version": 1, "validation_identities": 1}, {"version": 2}):
        with pytest.raises(UserError, match="another"):
            write_dataset(tmp_path / "p", **settings, seed=0, **other)
