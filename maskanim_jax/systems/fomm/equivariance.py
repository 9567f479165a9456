"""How are keypoints made equivariant? By a random known warp of the frame and the losses of Eq. 10
to 13.

A frame X is deformed by a known warp T_{X<-Y} into Y: Y(z) = X(T_{X<-Y}(z)). The keypoints detected
in Y, mapped by the warp, should equal those detected in X. Coordinates are float32, x first; -1 and
1 are the centres of the frame's corner pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import Precision
from ml_collections import ConfigDict

from maskanim_jax.nn.warp import coordinate_grid, grid_sample
from maskanim_jax.systems.fomm.motion import inverse, product

LOG_OFFSET = 1e-6
"""Added so that the spline kernel r^2 log(r) is finite at r = 0."""


class Warp(NamedTuple):
    """T_{X<-Y} for each of N frames: an affine map plus a thin-plate spline whose displacement is
    the same along x and y.

    `theta` (N, 2, 3) is the affine map; `control_points` (P^2, 2) are the spline's centres, rows of
    a grid over the frame; `control_params` (N, 1, P^2) are their weights.
    """

    theta: jax.Array
    control_points: jax.Array
    control_params: jax.Array


def control_grid(points: int) -> jax.Array:
    """`points` x `points` places over the whole frame, corners included,
    row by row: (points^2, 2).
    """
    return coordinate_grid(points, points).reshape(-1, 2)


def draw_warp(key: jax.Array, n: int, settings: ConfigDict) -> Warp:
    """A random warp for each of `n` frames; `settings` is `config.equivariance` (affine_sigma,
    tps_sigma, tps_points).
    """
    affine_key, spline_key = jax.random.split(key)
    noise = settings.affine_sigma * jax.random.normal(affine_key, (n, 2, 3))
    params = settings.tps_sigma * jax.random.normal(spline_key, (n, 1, settings.tps_points**2))
    return Warp(jnp.eye(2, 3) + noise, control_grid(settings.tps_points), params)


def _kernel(points: jax.Array, control_points: jax.Array) -> jax.Array:
    """r^2 log(r) for points (..., 2) and each control point: (..., P^2)."""
    radius = jnp.abs(points[..., None, :] - control_points).sum(-1)  # L1, as released
    return jnp.square(radius) * jnp.log(radius + LOG_OFFSET)


def _warp_one(warp: Warp, point: jax.Array) -> jax.Array:
    """T of one frame at one point: (2,) to (2,); the warp's leaves without their leading N."""
    affine = jnp.matmul(warp.theta[:, :2], point, precision=Precision.HIGHEST) + warp.theta[:, 2]
    return affine + (_kernel(point, warp.control_points) * warp.control_params[0]).sum()


_AXES = Warp(0, None, 0)  # type: ignore[arg-type]  # one set of control points for all frames
_over_points = jax.vmap(_warp_one, (None, 0))
_over_frames = jax.vmap(_over_points, (_AXES, 0))
_jacobian_over_frames = jax.vmap(jax.vmap(jax.jacfwd(_warp_one, 1), (None, 0)), (_AXES, 0))


def warp_coordinates(warp: Warp, points: jax.Array) -> jax.Array:
    """T_{X<-Y} at (N, K, 2) points of Y: where they lie in X, (N, K, 2)."""
    return _over_frames(warp, points)


def warp_jacobian(warp: Warp, points: jax.Array) -> jax.Array:
    """The exact derivative of T_{X<-Y} at (N, K, 2) points of Y: (N, K, 2, 2), row i has the
    derivatives of coordinate i.
    """
    return _jacobian_over_frames(warp, points)


def warp_frames(warp: Warp, frames: jax.Array, *, align_corners: bool) -> jax.Array:
    """Y of X = `frames` (N, S, S, C), bilinear, reflected at the borders; `align_corners` is the
    sampling convention of `nn.warp`.
    """
    n, height, width, _ = frames.shape
    pixels = coordinate_grid(height, width).reshape(-1, 2)
    # All frames share the pixels, so the kernel is computed once.
    kernel = _kernel(pixels, warp.control_points)
    bend = jnp.matmul(warp.control_params[:, 0], kernel.T, precision=Precision.HIGHEST)
    affine = jnp.einsum("nij,mj->nmi", warp.theta[:, :, :2], pixels, precision=Precision.HIGHEST)
    grid = (affine + warp.theta[:, None, :, 2] + bend[..., None]).reshape(n, height, width, 2)
    return grid_sample(frames, grid, align_corners=align_corners, padding="reflection")


def value_loss(warp: Warp, points: jax.Array, warped_points: jax.Array) -> jax.Array:
    """Eq. 11: mean absolute distance of X's keypoints (N, K, 2) from those of Y (N, K, 2), carried
    back by the warp.
    """
    return jnp.abs(points - warp_coordinates(warp, warped_points)).mean()


def jacobian_loss(warp: Warp, jacobians: jax.Array, warped_points: jax.Array, warped_jacobians: jax.Array) -> jax.Array:
    """Eq. 13: mean absolute difference of the identity and J_X^-1 (dT/dz at Y's keypoints) J_Y.

    `jacobians` (N, K, 2, 2) are X's, `warped_points` (N, K, 2) and `warped_jacobians` (N, K, 2, 2)
    Y's.
    """
    carried = product(warp_jacobian(warp, warped_points), warped_jacobians)
    return jnp.abs(jnp.eye(2) - product(inverse(jacobians), carried)).mean()
