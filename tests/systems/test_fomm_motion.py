"""Do keypoints move points as in Eq. 4, 5, 14 and 15, and is a pose independent of position and size?"""

import jax.numpy as jnp
import numpy as np
import pytest

from maskanim_jax.nn.warp import coordinate_grid
from maskanim_jax.systems.fomm.motion import hull_area, inverse, pose_difference, relative, sparse_motions

RNG = np.random.RandomState(3)


def keypoints(n=2, k=4, jacobian=True):
    found = {"value": jnp.asarray(RNG.uniform(-0.8, 0.8, (n, k, 2)), jnp.float32)}
    if jacobian:
        found["jacobian"] = jnp.asarray(np.eye(2) + RNG.uniform(-0.3, 0.3, (n, k, 2, 2)), jnp.float32)
    return found


def reference_area(points):
    """Area of the hull by Andrew's chains, in float64."""
    points = sorted(map(tuple, np.asarray(points, np.float64)))

    def chain(points):
        hull = []
        for x, y in points:
            while len(hull) > 1 and (hull[-1][0] - hull[-2][0]) * (y - hull[-2][1]) <= (hull[-1][1] - hull[-2][1]) * (
                x - hull[-2][0]
            ):
                hull.pop()
            hull.append((x, y))
        return hull[:-1]

    hull = np.array(chain(points) + chain(points[::-1]))
    x, y = hull.T
    return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


@pytest.mark.parametrize("jacobian", [True, False])
def test_each_motion_takes_the_drivers_keypoint_to_the_sources(jacobian):
    source, driving = keypoints(jacobian=jacobian), keypoints(jacobian=jacobian)
    for n in range(2):
        for k in range(4):
            at = driving["value"][n, k][None, None]
            one = [{name: leaf[n : n + 1] for name, leaf in points.items()} for points in (source, driving)]
            motions = sparse_motions(at, *one)
            np.testing.assert_allclose(motions[0, 0, 0, 0], at[0, 0])  # the background stays
            np.testing.assert_allclose(motions[0, k + 1, 0, 0], source["value"][n, k], atol=1e-6)


def test_around_a_keypoint_the_slope_is_j_of_eq_5_and_without_jacobians_the_identity():
    source, driving, step = keypoints(), keypoints(), jnp.asarray([[[0.3, -0.2]]])
    moved = sparse_motions(step, source, driving) - sparse_motions(jnp.zeros((1, 1, 2)), source, driving)
    j = np.asarray(source["jacobian"]) @ np.linalg.inv(driving["jacobian"])
    np.testing.assert_allclose(moved[:, 1:, 0, 0], j @ np.asarray(step[0, 0]), atol=1e-5)
    plain = [{"value": points["value"]} for points in (source, driving)]
    moved = sparse_motions(step, *plain) - sparse_motions(jnp.zeros((1, 1, 2)), *plain)
    np.testing.assert_allclose(moved[:, 1:, 0, 0], np.broadcast_to(step[0, 0], (2, 4, 2)), atol=1e-6)


def test_equal_keypoints_move_nothing():
    grid, points = coordinate_grid(5, 5), keypoints()
    np.testing.assert_allclose(sparse_motions(grid, points, points), np.broadcast_to(grid, (2, 5, 5, 5, 2)), atol=1e-5)


def test_a_singular_jacobian_stays_finite():
    assert np.isfinite(inverse(jnp.zeros((2, 2)))).all()
    assert np.isfinite(inverse(jnp.ones((2, 2)))).all()


def test_a_driver_that_stands_still_leaves_the_source_as_it_is():
    source, driving = keypoints(), keypoints()
    moved = relative(source, driving, driving, 1.7)
    np.testing.assert_allclose(moved["value"], source["value"], atol=1e-6)
    np.testing.assert_allclose(moved["jacobian"], source["jacobian"], atol=1e-5)


def test_a_driver_twice_as_large_moves_the_source_half_as_far():
    source, first = keypoints(), keypoints()
    shift = jnp.asarray([0.2, -0.1])
    moved = relative(source, {**first, "value": first["value"] + shift}, first, 0.5)
    np.testing.assert_allclose(moved["value"] - source["value"], np.broadcast_to(shift / 2, (2, 4, 2)), atol=1e-6)


@pytest.mark.slow
def test_hull_areas_are_those_of_another_algorithm():
    points = RNG.uniform(-1, 1, (50, 10, 2)).astype(np.float32)
    np.testing.assert_allclose(hull_area(jnp.asarray(points)), [reference_area(p) for p in points], rtol=1e-5)


@pytest.mark.parametrize(
    ("points", "area"),
    [
        ([(0, 0), (1, 0), (1, 1), (0, 1), (0.5, 0.5)], 1),  # one inside
        ([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0, 1), (0, 1), (0, 0)], 1),  # in line, and twice the same
        ([(0, 0), (1, 1), (2, 2), (3, 3)], 0),
        ([(0.3, 0.3)] * 4, 0),
    ],
)
def test_hull_areas_of_points_in_line_and_on_each_other(points, area):
    assert float(hull_area(jnp.asarray(points, jnp.float32))) == pytest.approx(area, abs=1e-6)


def test_a_pose_has_neither_place_nor_size():
    points = keypoints(k=10)["value"]
    np.testing.assert_allclose(pose_difference(points, 0.4 * points + 0.3), 0, atol=1e-5)
    assert (pose_difference(points, points[:, ::-1]) > 0.3).all()
