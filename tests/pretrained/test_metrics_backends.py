"""Do the real networks find their subjects? Runs if weights and runtimes are installed, on real clips if available."""

from pathlib import Path

import numpy as np
import pytest

from maskanim_jax.errors import UserError
from maskanim_jax.pretrained import backends
from maskanim_jax.video.reader import open_frames

pytestmark = pytest.mark.slow

DATA = Path(__file__).parents[3] / "shared" / "data"
POINTS = ["blazepose-full", "movenet-thunder", "dlib-68", "facemesh"]
KEYPOINTS = {"blazepose-full": 33, "movenet-thunder": 17, "dlib-68": 68, "facemesh": 468}


def made(name):
    try:
        return backends.make(name)
    except UserError as error:
        pytest.skip(str(error))


def real_frames(folder, clip=0, places=(0,)):
    clips = sorted((DATA / folder / "test").glob("*.mp4"))
    if not clips:
        pytest.skip(f"no clips in {DATA / folder}")
    found = []
    with open_frames(clips[clip]) as frames:
        for number, frame in enumerate(frames):
            if number in places:
                found.append(frame)
            if number >= max(places):
                break
    return np.stack(found)


def subject(network, **where):
    return real_frames("taichi" if network.subject == "body" else "vox", **where)


@pytest.mark.parametrize("name", POINTS)
def test_keypoints_move_with_the_picture(name):
    network = made(name)
    (frame,) = subject(network)
    moved = np.roll(np.pad(frame, ((16, 16), (16, 16), (0, 0)), mode="edge"), (6, 9), (0, 1))[16:-16, 16:-16]
    points = network.points(np.stack([frame, moved]))
    assert points.where.shape == (2, KEYPOINTS[name], 2)
    assert points.found.shape == (2, KEYPOINTS[name])
    both = points.found.all(0)
    assert both.mean() > 0.6
    np.testing.assert_allclose(np.median((points.where[1] - points.where[0])[both], 0), (9, 6), atol=2.5)


@pytest.mark.parametrize("name", POINTS)
def test_nobody_is_found_in_noise_and_keypoints_of_large_frames_are_in_their_pixels(name):
    network = made(name)
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 96, 3)).astype(np.uint8)
    assert network.points(noise).found.mean() < 0.3
    (frame,) = subject(network)
    large = frame.repeat(2, 0).repeat(2, 1)
    small, wide = network.points(frame[None]), network.points(np.pad(large, ((0, 0), (0, 64), (0, 0)))[None])
    both = small.found[0] & wide.found[0]
    assert both.mean() > 0.5
    assert np.median(np.linalg.norm(2 * small.where[0] - wide.where[0], axis=-1)[both]) < 12


@pytest.mark.parametrize("name", ["dlib-face", "mobilenetv2"])
def test_one_person_is_nearer_to_oneself_than_to_another(name):
    network = made(name)
    same = real_frames("vox", clip=0, places=(0, 20))
    other = real_frames("vox", clip=1, places=(0,))
    embedded = network.embed(np.concatenate([same, other]))
    assert embedded.found.all()
    apart = np.linalg.norm(embedded.vectors[0] - embedded.vectors[1:], axis=-1)
    assert apart[0] < 0.75 * apart[1]


def test_a_frame_without_a_face_has_no_embedding():
    embedded = made("dlib-face").embed(np.zeros((1, 64, 64, 3), np.uint8))
    assert not embedded.found[0]
    assert not embedded.vectors.any()


def test_two_body_networks_agree_on_where_shoulders_and_hips_are():
    (frame,) = real_frames("taichi")
    blaze, move = made("blazepose-full").points(frame[None]), made("movenet-thunder").points(frame[None])
    ours, theirs = [11, 12, 23, 24], [5, 6, 11, 12]
    assert blaze.found[0, ours].all()
    assert move.found[0, theirs].all()
    assert np.linalg.norm(blaze.where[0, ours] - move.where[0, theirs], axis=-1).mean() < 12


def test_two_face_networks_agree_on_where_eyes_nose_and_mouth_are():
    (frame,) = real_frames("vox")
    dlib, mesh = made("dlib-68").points(frame[None]), made("facemesh").points(frame[None])
    # Outer corners of the eyes, tip of the nose, corners of the mouth.
    ours, theirs = (
        [36, 45, 30, 48, 54],
        [33, 263, 4, 61, 291],
    )
    assert np.linalg.norm(dlib.where[0, ours] - mesh.where[0, theirs], axis=-1).mean() < 8
