"""Does the warp of the equivariance loss match the released code, and do the losses vanish for keypoints that follow it?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from maskanim_jax.systems.fomm import equivariance
from maskanim_jax.systems.fomm.equivariance import Warp, control_grid, draw_warp

jacobian_loss, value_loss, warp_coordinates, warp_jacobian = map(
    jax.jit,
    (
        equivariance.jacobian_loss,
        equivariance.value_loss,
        equivariance.warp_coordinates,
        equivariance.warp_jacobian,
    ),
)
warp_frames = jax.jit(equivariance.warp_frames, static_argnames="align_corners")

SETTINGS = ConfigDict({"affine_sigma": 0.05, "tps_sigma": 0.005, "tps_points": 5})
STILL = ConfigDict({"affine_sigma": 0.0, "tps_sigma": 0.0, "tps_points": 5})


@pytest.fixture(scope="module")
def warp():
    return draw_warp(jax.random.key(0), 3, SETTINGS)


@pytest.fixture(scope="module")
def points():
    """Off the lines through the spline's centres, where its kernel has a kink (the distance is an L1 one)."""
    cells = jax.random.randint(jax.random.key(1), (3, 10, 2), 0, 4) * 0.5 - 0.75
    return cells + jax.random.uniform(jax.random.key(2), (3, 10, 2), minval=-0.15, maxval=0.15)


@pytest.fixture(scope="module")
def jacobians():
    return jnp.eye(2) + 0.2 * jax.random.normal(jax.random.key(3), (3, 10, 2, 2))


def numeric_jacobian(warp, points, step=1e-2):
    """Central differences: column j is the derivative along coordinate j."""
    columns = [
        (warp_coordinates(warp, points + step * axis) - warp_coordinates(warp, points - step * axis)) / (2 * step)
        for axis in jnp.eye(2)
    ]
    return jnp.stack(columns, -1)


def test_coordinates_follow_the_written_formula(warp, points):
    theta, params = np.asarray(warp.theta), np.asarray(warp.control_params)
    ours = np.asarray(warp_coordinates(warp, points))
    line = [-1.0, -0.5, 0.0, 0.5, 1.0]
    for n, k in ((0, 0), (2, 7)):
        x, y = map(float, points[n, k])
        spline = 0.0
        for i, centre_y in enumerate(line):
            for j, centre_x in enumerate(line):
                r = abs(x - centre_x) + abs(y - centre_y)
                spline += params[n, 0, 5 * i + j] * r**2 * np.log(r + 1e-6)
        expected = theta[n] @ [x, y, 1.0] + spline  # one scalar, added to both coordinates
        np.testing.assert_allclose(ours[n, k], expected, atol=1e-6)


def test_the_jacobian_is_the_derivative_of_the_coordinates(warp, points):
    np.testing.assert_allclose(warp_jacobian(warp, points), numeric_jacobian(warp, points), atol=3e-3)
    # The spline has a part.
    assert float(jnp.abs(warp_jacobian(warp, points) - warp.theta[:, None, :, :2]).max()) > 0.01


def test_without_noise_nothing_moves(points):
    still = draw_warp(jax.random.key(0), 3, STILL)
    np.testing.assert_allclose(warp_coordinates(still, points), points, atol=1e-6)
    frames = jax.random.uniform(jax.random.key(3), (3, 16, 16, 3))
    np.testing.assert_allclose(warp_frames(still, frames, align_corners=True), frames, atol=1e-4)


def test_each_frame_has_a_draw_of_its_own_with_the_stated_deviations():
    many = draw_warp(jax.random.key(4), 2000, SETTINGS)
    noise = np.asarray(many.theta - jnp.eye(2, 3))
    assert noise.std() == pytest.approx(0.05, rel=0.03)
    assert np.abs(noise.mean(0)).max() < 0.005
    assert np.asarray(many.control_params).std() == pytest.approx(0.005, rel=0.03)
    np.testing.assert_array_equal(many.theta, draw_warp(jax.random.key(4), 2000, SETTINGS).theta)


def test_a_detector_that_reads_its_points_through_the_warp_has_no_loss(warp, points, jacobians):
    in_frame = warp_coordinates(warp, points)  # Y shows at a point what X shows where the warp carries it
    assert value_loss(warp, in_frame, points) == 0
    in_frame_jacobians = numeric_jacobian(warp, points) @ jacobians
    assert jacobian_loss(warp, in_frame_jacobians, points, jacobians) < 3e-3


def test_a_detector_that_does_not_look_has_a_loss(warp, points, jacobians):
    assert value_loss(warp, points, points) > 0.01
    assert jacobian_loss(warp, jacobians, points, jacobians) > 0.01


def test_frame_and_points_move_by_the_same_warp(warp):
    """A frame whose colour is its coordinate, warped, shows at each place where the warp carries that place."""
    side = 33
    places = control_grid(side)
    frames = jnp.broadcast_to(places.reshape(1, side, side, 2), (3, side, side, 2))
    shown = np.asarray(warp_frames(warp, frames, align_corners=True)).reshape(3, -1, 2)
    carried = np.asarray(warp_coordinates(warp, jnp.broadcast_to(places, (3, side * side, 2))))
    inside = np.abs(carried).max(-1) <= 1
    assert inside.mean() > 0.5
    np.testing.assert_allclose(shown[inside], carried[inside], atol=1e-4)
    other = np.asarray(warp_frames(warp, frames, align_corners=False)).reshape(3, -1, 2)
    deep = np.abs(carried).max(-1) <= 0.9
    assert 1e-3 < np.abs(other[deep] - carried[deep]).max() < 2 / side  # half a pixel or less at the border


def test_a_frame_is_warped_alike_alone_and_in_a_batch_of_16():
    """jaxlib 0.10.2 warped half of a larger batch wrongly (see utils/xla_flags.py)."""
    warp = draw_warp(jax.random.key(6), 16, SETTINGS)
    frames = jax.random.uniform(jax.random.key(7), (16, 64, 64, 3))
    places = jnp.broadcast_to(control_grid(64), (16, 64 * 64, 2))
    together = warp_frames(warp, frames, align_corners=False), jax.jit(warp_coordinates)(warp, places)
    for n in (0, 7, 15):
        one = Warp(warp.theta[n : n + 1], warp.control_points, warp.control_params[n : n + 1])
        with jax.disable_jit():
            alone = (
                equivariance.warp_frames(one, frames[n : n + 1], align_corners=False),
                equivariance.warp_coordinates(one, places[:1]),
            )
        for many, single in zip(together, alone, strict=True):
            np.testing.assert_allclose(many[n], single[0], atol=2e-5)


def test_values_and_gradients_are_finite_on_the_spline_s_own_centres(jacobians):
    warp = draw_warp(jax.random.key(0), 3, SETTINGS)
    centres = jnp.broadcast_to(control_grid(5)[:10], (3, 10, 2))

    def total(theta, points, jacobians):
        moved = Warp(theta, warp.control_points, warp.control_params)
        return value_loss(moved, points, centres) + jacobian_loss(moved, jacobians, points, jacobians)

    value, grads = jax.jit(jax.value_and_grad(total, (0, 1, 2)))(warp.theta, centres, jacobians)
    assert all(np.all(np.isfinite(leaf)) for leaf in (value, *grads))


def test_the_jacobian_loss_does_not_shrink_with_the_jacobians(warp, points, jacobians):
    """What Eq. 13 is for: a plain difference of both sides of Eq. 12 would reward small Jacobians."""
    whole = float(jacobian_loss(warp, jacobians, points, jacobians))
    assert float(jacobian_loss(warp, 0.1 * jacobians, points, 0.1 * jacobians)) == pytest.approx(whole, rel=1e-3)
