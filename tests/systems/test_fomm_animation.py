"""Does FOMM implement the system interface: outputs, motion, warnings?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import fomm_puppets
from maskanim_jax.errors import UserError
from maskanim_jax.nn.layers import Conv
from maskanim_jax.systems import build
from maskanim_jax.systems.fomm.keypoints import _undeformed
from maskanim_jax.systems.fomm.system import keypoint_figures

pytestmark = pytest.mark.slow


def tiny(**fields):
    """32-pixel frames; keypoints that are spread out although nothing was learned, as the heatmaps are sharp."""
    c = fomm_puppets.get_config()
    c.frame_size = 32
    for network in (c.keypoints, c.motion):
        network.width, network.num_blocks, network.max_width = 4, 2, 16
    c.generator.width, c.generator.max_width, c.generator.residual_blocks = 4, 8, 1
    c.loss.pyramid_sizes, c.loss.vgg_layers, c.loss.vgg = (32,), ("relu1_1",), "untrained"
    c.keypoints.temperature = 0.002
    c.update_from_flattened_dict(fields)
    return c


@pytest.fixture(scope="module")
def run():
    """(system, its variables with Jacobians that depend on the frame, frames (4, 32, 32, 3), jitted begin and animate)."""
    system = build(tiny())
    variables = jax.jit(system.init)(jax.random.key(0))
    jacobian = variables.params["keypoints"]["jacobian"]
    jacobian["kernel"] = 0.05 * jax.random.normal(jax.random.key(1), jacobian["kernel"].shape)
    frames = jax.random.uniform(jax.random.key(2), (4, 32, 32, 3))
    return system, variables, frames, jax.jit(system.encode_source), jax.jit(system.animate, static_argnums=3)


@pytest.fixture(scope="module")
def reconstruct(run):
    """Two pairs at a time: reconstructed from the same source."""
    jitted = jax.jit(run[0].reconstruct)
    return lambda source, driving: jitted(run[1], jnp.stack([source] * 2), driving)


@pytest.fixture(scope="module")
def source_state(run):
    _, variables, frames, begin, _ = run
    return begin(variables, frames[:1], frames[1:2])


def test_every_picture_is_there_and_within_black_and_white(run, source_state):
    system, variables, frames, _, animate = run
    shown = animate(variables, source_state, frames[1:], system.animation_options({}))
    assert set(shown) == set(system.output_names)
    for name, picture in shown.items():
        assert picture.shape[0] == 3, name
        assert picture.shape[-1] in (1, 3), name
        assert picture.min() >= 0, name
        assert picture.max() <= 1 + 1e-6, name
    assert shown[system.result].shape == (3, 32, 32, 3)


def test_absolute_motion_is_reconstruction_with_the_drivers_keypoints(run, source_state, reconstruct):
    system, variables, frames, _, animate = run
    shown = animate(variables, source_state, frames[1:], system.animation_options({"motion": "absolute"}))
    pairs = reconstruct(frames[0], frames[1:3])
    for name in system.output_names:
        np.testing.assert_allclose(shown[name][:2], pairs[name], atol=1e-3, err_msg=name)


def test_relative_motion_begins_with_the_source_in_its_own_pose(run, source_state, reconstruct):
    system, variables, frames, _, animate = run
    shown = animate(variables, source_state, frames[1:], system.animation_options({"motion": "relative"}))
    own = reconstruct(frames[0], frames[:2])
    np.testing.assert_allclose(shown["prediction"][0], own["prediction"][0], atol=1e-3)
    np.testing.assert_allclose(shown["deformed"][0], own["deformed"][0], atol=1e-3)
    assert np.abs(shown["deformed"][1:] - own["deformed"][:1]).max() > 1e-2


def test_adapted_scale_changes_relative_motion_by_the_sizes_of_the_two(run, source_state):
    system, variables, frames, _, animate = run
    plain = animate(variables, source_state, frames[1:], system.animation_options({}))["motion"]
    adapted = system.animation_options({"adapt_scale": "true"})
    assert np.abs(animate(variables, source_state, frames[1:], adapted)["motion"] - plain).max() > 1e-3
    same = {**source_state, "scale": jnp.ones_like(source_state["scale"])}
    np.testing.assert_allclose(animate(variables, same, frames[1:], adapted)["motion"], plain, atol=1e-5)


def test_a_different_pose_is_one_sentence_and_only_for_relative_motion(run, source_state):
    system, variables, frames, begin, _ = run
    relative, absolute = (system.animation_options({"motion": motion}) for motion in ("relative", "absolute"))
    (sentence,) = system.warnings(source_state, relative)  # noise has nothing in common with noise
    assert "--find_best_frame" in sentence
    assert system.warnings(source_state, absolute) == []
    assert system.warnings(begin(variables, frames[:1], frames[:1]), relative) == []


def test_the_nearest_pose_is_the_sources_own(run):
    system, variables, frames, _, _ = run
    distances = jax.jit(system.pose_distance)(variables, frames[2:3], frames)
    assert distances.shape == (4,)
    assert int(distances.argmin()) == 2
    assert float(distances[2]) == pytest.approx(0, abs=1e-4)


def test_alarms_tell_keypoints_on_one_spot_from_keypoints_that_stand_still():
    collapse_warnings = build(tiny()).collapse_warnings
    points = jax.random.uniform(jax.random.key(0), (2, 10, 2), minval=-1.0)
    alive = keypoint_figures(points, points + 0.05)
    still = keypoint_figures(points, points)
    collapsed = keypoint_figures(1e-4 * points, 1e-4 * points + 0.2)
    assert collapse_warnings({name: float(value) for name, value in alive.items()}) == []
    assert "no motion" in collapse_warnings({name: float(value) for name, value in still.items()})[0]
    assert "collapsed" in collapse_warnings({name: float(value) for name, value in collapsed.items()})[0]


def test_without_jacobians_and_occlusion_the_networks_lack_them_and_all_pictures_remain():
    system = build(tiny(**{"keypoints.jacobian": False, "motion.occlusion": False, "loss.equivariance_jacobian": 0.0}))
    variables = jax.eval_shape(system.init, jax.random.key(0))
    assert "jacobian" not in variables.params["keypoints"]
    assert "occlusion" not in variables.params["generator"]["dense_motion"]
    assert "discriminator" not in variables.params
    frames = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    shown = jax.eval_shape(system.reconstruct, variables, frames, frames)
    assert set(shown) == set(system.output_names)
    assert shown["occlusion"].shape == (2, 16, 16, 1)
    assert {"Monkey-Net" in s for s in system.paper_deviations()} == {True, False}


def test_fresh_jacobians_are_the_identity():
    conv = _undeformed(Conv(2, 8, 7, rngs=nnx.Rngs(0)))
    np.testing.assert_array_equal(conv.bias[...], [1, 0, 0, 1] * 2)
    assert not conv.kernel[...].any()


def test_one_map_may_serve_all_keypoints():
    network = build(tiny(**{"keypoints.single_jacobian": True})).networks["keypoints"]
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    assert params["jacobian"]["bias"].shape == (4,)
    frame = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    found, _ = jax.eval_shape(lambda *inputs: network(*inputs, train=False), params, stats, frame)
    assert found["jacobian"].shape == (1, 10, 2, 2)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("frame_size", 30, "too often"),
        ("keypoints.scale", 0.3, "divides config.frame_size"),
        ("motion.num_blocks", 9, "too often"),
        ("generator.down_blocks", 6, "too often"),
        ("precision", "float64", "one of float32"),
        ("loss.pyramid_sizes", (20,), "does not divide"),
        ("data.resize_low", 1.5, "not above resize_high"),
        ("keypoints.num_keypoints", 0, "at least 1"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(field, value, sentence):
    with pytest.raises(UserError, match=sentence):
        build(tiny(**{field: value}))


def test_a_discriminator_too_deep_for_its_frames_is_one_sentence():
    with pytest.raises(UserError, match="too many for frames of 32"):
        build(tiny(**{"discriminator.enabled": True, "discriminator.num_blocks": 4}))
