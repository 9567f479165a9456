"""Is smoothing over time an exponential average, independent of the batch size, and off by default?"""

import jax
import jax.monitoring
import numpy as np
import pytest
from untrained_run import two_systems

from maskanim_jax.animation.animator import Animator
from maskanim_jax.animation.compiled import compiled, make_video_step
from maskanim_jax.animation.generate import animate
from maskanim_jax.animation.smoothing import smooth
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.errors import UserError

POSES = {"perturbed_masks": "driving_mask", "fomm": "driving_keypoints"}
LEVEL = 1 / 255  # P_test works on whole levels: rounding may move a pixel of a mask by one


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The two systems by name."""
    return {run.system.name: run for run in map(load_run, two_systems(tmp_path_factory.mktemp("runs")))}


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)


def shown(run, frames, batch=3, **given):
    """All pictures of the first frame animated by the others."""
    options = run.system.animation_options({name: str(value) for name, value in given.items()})
    found = list(animate(run.system, run.variables, frames[0], frames[1:], options, batch=batch))
    return {name: np.stack([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize("parts", [[7], [1] * 7, [3, 3, 1]])
def test_it_is_the_recurrence_however_the_frames_are_parted(parts):
    x, strength = np.random.default_rng(1).normal(size=(7, 2, 3)).astype(np.float32), 0.7
    wanted = [x[0]]
    for each in x[1:]:
        wanted.append((1 - strength) * each + strength * wanted[-1])
    found, before, place = [], {"a": np.full((1, 2, 3), 99, np.float32)}, 0
    for part in parts:
        poses, before = smooth({"a": x[place : place + part]}, before, np.asarray(place == 0), strength)
        found.append(poses["a"])
        place += part
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-5)


@pytest.mark.parametrize("name", POSES)
@pytest.mark.slow
def test_videos_are_smoothed_alike_in_any_batch_and_frame_by_frame(runs, frames, name):
    run = runs[name]
    plain, three, one = shown(run, frames), shown(run, frames, smooth=0.6), shown(run, frames, 1, smooth=0.6)
    for pictures in (POSES[name], run.system.result):
        np.testing.assert_allclose(three[pictures][0], plain[pictures][0], atol=1.5 * LEVEL)
        np.testing.assert_allclose(three[pictures], one[pictures], atol=1.5 * LEVEL)
    assert np.abs(three[POSES[name]] - plain[POSES[name]])[1:].max() > 1e-3
    session = Animator(run).stream(frames[0], smooth=0.6)
    streamed = np.stack([session(frame) for frame in frames[1:]]) / 255
    np.testing.assert_allclose(streamed, three[run.system.result], atol=3 * LEVEL)


@pytest.mark.slow
def test_masks_are_averaged_as_the_recurrence_says(runs, frames):
    plain, smoothed = (
        shown(runs["perturbed_masks"], frames, **given)["driving_mask"] for given in ({}, {"smooth": 0.6})
    )
    wanted = [plain[0]]
    for each in plain[1:]:
        wanted.append(0.4 * each + 0.6 * wanted[-1])
    np.testing.assert_allclose(smoothed, wanted, atol=1e-5)


@pytest.mark.slow
def test_the_next_video_begins_anew(runs, frames):
    run = runs["perturbed_masks"]
    first = shown(run, frames, smooth=0.6)["driving_mask"]
    shown(run, frames[::-1], smooth=0.6)
    np.testing.assert_array_equal(shown(run, frames, smooth=0.6)["driving_mask"], first)


@pytest.mark.slow
def test_a_driver_that_stands_still_is_left_as_it_is(runs, frames):
    still = np.stack([frames[0], *[frames[1]] * 4])
    plain, smoothed = (shown(runs["fomm"], still, **given) for given in ({}, {"smooth": 0.9}))
    np.testing.assert_allclose(smoothed["prediction"], plain["prediction"], atol=1e-3)


@pytest.mark.parametrize("name", POSES)
@pytest.mark.slow
def test_without_it_nothing_is_changed(runs, name):
    run = runs[name]
    ready = compiled(run.system, run.variables, 2)
    for given in ({}, {"smooth": "0"}):
        assert make_video_step(ready, run.system.animation_options(given)) == ready.step


@pytest.mark.parametrize("name", POSES)
@pytest.mark.parametrize("value", ["1", "-0.1", "nan", "much", "true"])
@pytest.mark.slow
def test_a_strength_that_cannot_be_is_a_sentence(runs, name, value):
    with pytest.raises(UserError, match=f"--smooth={value} must be a number from 0"):
        runs[name].system.animation_options({"smooth": value})


@pytest.mark.slow
def test_it_needs_no_longer_compilation_for_later_batches(runs, frames):
    """The state between batches has a fixed shape and device: a second compilation would stall a camera."""
    run = runs["perturbed_masks"]
    step = make_video_step(compiled(run.system, run.variables, 2), run.system.animation_options({"smooth": "0.3"}))
    options = run.system.animation_options({"smooth": "0.3"})
    units = frames.astype(np.float32) / 255
    source_state = compiled(run.system, run.variables, 2).begin(units[:1], units[1:2])
    jax.block_until_ready(step(source_state, units[1:3], options))
    with _counted() as count:
        jax.block_until_ready(step(source_state, units[3:5], options))
    assert count == []


class _counted:
    """The names of what JAX compiles inside."""

    def __enter__(self):
        self.names = []
        jax.monitoring.register_event_duration_secs_listener(self._note)
        return self.names

    def _note(self, name, seconds, **_):
        if "backend_compile" in name:
            self.names.append(name)

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._note)
