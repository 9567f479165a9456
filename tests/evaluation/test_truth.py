"""Is an animated puppet compared with the ground truth, and do the metrics have their documented meaning?"""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter
from tiny import tiny_config

from input_pipeline.puppets.dataset import clips as puppet_clips
from input_pipeline.puppets.dataset import identity_of
from input_pipeline.puppets.draw import background, render
from input_pipeline.puppets.identity import draw_identity
from input_pipeline.puppets.pose import trajectory
from maskanim_jax import truth
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import cross_identity, cross_identity_scenes, puppet_worlds
from maskanim_jax.evaluation.cross_identity_metrics import (
    GroundTruth,
    JointFinder,
    l1,
    leak,
    shape_leak,
    silhouette_iou,
)
from maskanim_jax.systems.interface import Variables

SIZE = 64
CLIPS = puppet_clips("test", 4, 1, 6, 0)


def unit(frame):
    return frame.astype(np.float32) / 255


def drawn(number=0, pose_of=1, at=3, **changes):
    """(Truth, its identity) of one puppet in another's pose."""
    identity = draw_identity(0, CLIPS[number].identity)
    pose = trajectory(0, CLIPS[pose_of].pose, 6)[at]
    pose = type(pose)(**{**pose.__dict__, **changes})
    made = render(identity, pose, SIZE)
    return GroundTruth(unit(made.frame), unit(background(identity, SIZE)), made.silhouette > 127, made.joints), pose


def shifted(right, dx):
    """The figure dx pixels to the right, before the same background."""
    moved, cover = np.roll(right.frame, dx, 1), np.roll(right.silhouette, dx, 1)
    return np.where(cover[..., None], moved, right.background)


@pytest.mark.parametrize("number", [0, 2])
def test_the_right_answer_has_no_error_at_all(number):
    right, _ = drawn(number)
    assert l1(right.frame, right) == 0
    assert JointFinder(right)(right.frame) == (0, 0)
    assert silhouette_iou(right.frame, right) > 0.93


def test_the_joint_error_rises_with_a_known_displacement_and_is_about_that_displacement():
    right, _ = drawn()
    find = JointFinder(right)
    errors = [find(shifted(right, dx)).error for dx in (0, 1, 2, 4, 7, 10)]
    assert errors == sorted(errors)
    assert errors == pytest.approx([0, 1, 2, 4, 7, 10], abs=0.75)


def test_the_joint_error_follows_a_limb_that_alone_is_wrong():
    pose = drawn()[1]
    right, _ = drawn(left_shoulder=1.2, left_elbow=0.0)
    find = JointFinder(right)
    measured, known = [], []
    for turn in (0.0, 0.15, 0.35, 0.6):
        wrong, _ = drawn(left_shoulder=1.2 + turn, left_elbow=0.0)
        measured.append(find(wrong.frame).error)
        known.append(float(np.linalg.norm(wrong.joints - right.joints, axis=1).mean()))
    assert pose is not None
    assert measured == sorted(measured)
    assert measured == pytest.approx(known, abs=0.5)


def test_a_blurred_right_answer_keeps_its_joints_and_the_empty_background_has_none():
    right, _ = drawn()
    picture = Image.fromarray(np.uint8(right.frame * 255)).filter(ImageFilter.GaussianBlur(1.2))
    blurred = JointFinder(right)(unit(np.asarray(picture)))
    assert blurred.error < 1
    assert blurred.missing == 0
    nothing = JointFinder(right)(right.background)
    assert nothing.missing == 1
    assert nothing.error == SIZE // 4
    assert silhouette_iou(right.background, right) == 0


def test_a_leak_is_0_for_the_own_looks_1_for_the_drivers_and_0_for_a_grey_blur():
    rng = np.random.default_rng(0)
    own, driver, distractor = rng.random((3, 16, 16, 3)).astype(np.float32)
    where = np.ones((16, 16), bool)
    assert leak(own, own, driver, distractor, where) == pytest.approx(0, abs=1e-6)
    assert leak(driver, own, driver, distractor, where) == pytest.approx(1, abs=1e-5)
    assert leak(0.7 * own + 0.3 * driver, own, driver, distractor, where) == pytest.approx(0.3, abs=1e-5)
    assert leak(np.full_like(own, 0.5), own, driver, distractor, where) == pytest.approx(0, abs=0.1)
    assert np.isnan(leak(own, own, driver, distractor, np.zeros((16, 16), bool)))


def test_a_shape_leak_is_small_for_the_own_figure_and_large_for_the_drivers():
    right, pose = drawn(0)
    other = render(draw_identity(0, CLIPS[3].identity), pose, SIZE).silhouette > 127
    theirs = np.where(other[..., None], 1 - right.background.round(), right.background)
    assert shape_leak(right.frame, right, other) < 0.25
    assert shape_leak(theirs, right, other) == 1


def test_pairs_are_of_two_identities_and_the_same_for_the_same_seed():
    pairs = cross_identity_scenes.choose_pairs(CLIPS, 7, 3)
    assert len(set(pairs)) == 7
    assert all(CLIPS[a].identity != CLIPS[b].identity for a, b in pairs)
    assert pairs == cross_identity_scenes.choose_pairs(CLIPS, 7, 3)
    assert len(cross_identity_scenes.choose_pairs(CLIPS, 1000, 0)) == 12
    with pytest.raises(UserError, match="test_identities"):
        cross_identity_scenes.choose_pairs(CLIPS[:1], 2, 0)


class Repeats:
    """A System that returns the source, or the driver if it shall leak."""

    name, result, frame_size, output_names, mask_output = "repeats", "answer", 32, ("answer",), None
    variants = {"still": {}, "leaking": {"leak": "yes"}}  # noqa: RUF012

    def for_inference(self, variables):
        return variables

    def animation_options(self, given):
        return given.get("leak", "no")

    def encode_source(self, variables, source, first):
        return source

    def animate(self, variables, source_state, driving, options):
        return {"answer": driving if options == "yes" else source_state + 0 * driving}

    def pose_distance(self, variables, source, driving):
        return driving.mean((1, 2, 3))

    def reconstruct(self, variables, source, driving):
        return {"answer": source, "source": source, "driving": driving}


@pytest.fixture(scope="module")
def figures():
    config = tiny_config()
    config.data.puppets.test_identities = 4
    return cross_identity.measure_cross_identity(LoadedRun(config, Repeats(), Variables({}, {}), 5), pairs=2, frames=3)


def row(figures, start, variant):
    return next(r for r in figures["rows"] if (r["start"], r["variant"]) == (start, variant))


def test_every_variant_and_every_reference_is_measured_from_both_starts(figures):
    names = {(r["start"], r["variant"]) for r in figures["rows"]}
    assert names == {
        (s, v) for s in cross_identity_scenes.STARTS for v in (*cross_identity.REFERENCES, "still", "leaking")
    }
    assert all(len(r["pairs"]) == 2 for r in figures["rows"])
    assert json.loads(json.dumps(figures)) == figures


def test_a_system_that_repeats_the_source_measures_like_repeating_the_source(figures):
    for start in cross_identity_scenes.STARTS:
        still, repeated = row(figures, start, "still"), row(figures, start, cross_identity.REFERENCES[0])
        assert still["l1"] == pytest.approx(repeated["l1"], abs=1e-4)
        assert still["joint_error"] == pytest.approx(repeated["joint_error"], abs=0.3)


def test_a_system_that_copies_the_driver_leaks(figures):
    leaking = row(figures, "own", "leaking")
    assert leaking["leak"] == pytest.approx(1, abs=0.01)
    assert leaking["leak_background"] == pytest.approx(1, abs=0.01)
    assert abs(row(figures, "own", "still")["leak_background"]) < 0.05


def test_repeating_the_source_is_measured_as_the_drawn_joints_say(figures):
    repeated = row(figures, "own", cross_identity.REFERENCES[0])
    assert repeated["joint_error"] == pytest.approx(repeated["known_joint_error"], rel=0.4)
    assert row(figures, "own", cross_identity.REFERENCES[1])["known_joint_error"] < repeated["known_joint_error"]


def test_real_clips_have_no_such_truth():
    config = tiny_config()
    config.data.puppets.test_identities = 0
    with pytest.raises(UserError, match="real clips"):
        cross_identity.measure_cross_identity(LoadedRun(config, Repeats(), Variables({}, {}), 5))


def test_further_variants_are_read_from_the_command_line():
    assert truth.parse_more(["p:threshold=100,mask_scale=1"]) == {"p": {"threshold": "100", "mask_scale": "1"}}
    for wrong in ("p", "p:", ":a=1", "p:a"):
        with pytest.raises(UserError, match="--variant"):
            truth.parse_more([wrong])


@pytest.fixture(scope="module")
def world():
    config = tiny_config()
    return cross_identity.measure_cross_identity(
        LoadedRun(config, Repeats(), Variables({}, {}), 5), pairs=3, frames=2, world=9
    )


def test_a_world_has_puppets_and_poses_of_its_own_and_is_reconstructed_too(world, figures):
    assert world["world"] == 9
    assert len(world["reconstruction"]["clips"]) == puppet_worlds.IDENTITIES
    assert world["reconstruction"]["ratio"] == pytest.approx(1)
    assert world["reconstruction"]["ratio_interval"] == pytest.approx([1, 1])
    low, high = world["reconstruction"]["l1_interval"]
    assert low < world["reconstruction"]["l1"] < high
    assert row(world, "own", "still")["l1"] != row(figures, "own", "still")["l1"]
    assert "world" not in figures


def test_every_mean_has_its_interval_and_the_table_shows_it(world):
    still = row(world, "own", "still")
    low, high = still["intervals"]["joint_error"]
    assert low <= still["joint_error"] <= high
    assert f"{still['joint_error']:.3f} [{low:.3f}, {high:.3f}]" in puppet_worlds.table(world)


def test_the_world_of_the_training_is_refused():
    config = tiny_config()
    with pytest.raises(UserError, match="--world=0"):
        cross_identity.measure_cross_identity(LoadedRun(config, Repeats(), Variables({}, {}), 5), world=0)


def test_joint_errors_are_in_pixels_of_64_whatever_the_frames_size(figures):
    class Larger(Repeats):
        frame_size = 64

    config = tiny_config()
    config.data.puppets.test_identities = 4
    larger = cross_identity.measure_cross_identity(LoadedRun(config, Larger(), Variables({}, {}), 5), pairs=2, frames=3)
    small, large = (row(each, "own", cross_identity.REFERENCES[0]) for each in (figures, larger))
    assert large["known_joint_error"] == pytest.approx(small["known_joint_error"], rel=0.01)
    assert large["joint_error"] == pytest.approx(small["joint_error"], rel=0.3)


def test_the_right_answer_of_version_2_has_no_error_either():
    a, b = puppet_clips("test", 2, 1, 6, 0, version=2)
    pose = trajectory(0, b.pose, 6)[3]
    identity = identity_of(a)
    made = render(identity, pose, SIZE)
    right = GroundTruth(unit(made.frame), unit(background(identity, SIZE)), made.silhouette > 127, made.joints)
    assert JointFinder(right)(right.frame) == (0, 0)
    assert silhouette_iou(right.frame, right) > 0.9
    moved = JointFinder(right)(shifted(right, 4))
    assert moved.error == pytest.approx(4, abs=0.75)
