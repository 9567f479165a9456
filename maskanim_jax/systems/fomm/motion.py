"""How do keypoints define motion? Eq. 4, 5, 14 and 15, heatmaps, and the size of a pose.

Keypoints are {"value": (N, K, 2), "jacobian": (N, K, 2, 2) or absent}, x first, in [-1, 1],
float32. Without Jacobians every J_k is the identity: the zeroth-order model of Monkey-Net.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from maskanim_jax.systems.fomm.keypoints import Keypoints

SMALLEST = 1e-6
"""Lower bound of determinants and areas, so that a collapsed keypoint cannot make a step infinite.
"""


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Matrix product over the last two axes (2 x 2 here) in full float32 on every device."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def inverse(matrices: jax.Array) -> jax.Array:
    """Inverse of (..., 2, 2), by the formula; a determinant below 1e-6
    counts as 1e-6 of its sign.
    """
    a, b, c, d = (matrices[..., i, j] for i in (0, 1) for j in (0, 1))
    determinant = a * d - b * c
    determinant = jnp.where(
        jnp.abs(determinant) < SMALLEST, jnp.where(determinant < 0, -SMALLEST, SMALLEST), determinant
    )
    adjugate = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], -2)
    return adjugate / determinant[..., None, None]


def sparse_motions(grid: jax.Array, source: Keypoints, driving: Keypoints) -> jax.Array:
    """Maps the points z of a grid (H, W, 2) by each local motion: (N, K + 1, H, W, 2).

    The first motion is the background's identity. `source` may be a single one for all N of
    `driving`. Eq. 4: T_{S<-R}(p_k) + J_k (z - T_{D<-R}(p_k)), with J_k of Eq. 5.
    """
    n = driving["value"].shape[0]
    moved = grid - driving["value"][:, :, None, None]
    if "jacobian" in source:
        jacobian = product(source["jacobian"], inverse(driving["jacobian"]))[:, :, None, None]
        moved = (jacobian * moved[..., None, :]).sum(-1)
    moved = moved + source["value"][:, :, None, None]
    return jnp.concatenate([jnp.broadcast_to(grid, (n, 1, *grid.shape)), moved], 1)


def gaussians(points: jax.Array, grid: jax.Array, variance: float) -> jax.Array:
    """exp(-|z - p|^2 / (2 variance)) of points (N, K, 2) on a grid (H, W, 2): (N, H, W, K)."""
    distance = jnp.square(grid[None, :, :, None] - points[:, None, None]).sum(-1)
    return jnp.exp(-0.5 * distance / variance)


def hull_area(points: jax.Array) -> jax.Array:
    """Area of the convex hull of (..., K, 2) points: (...,). Gift wrapping, every point at once and
    no loop; K is small.

    Loops and sorting would be fewer operations, but ONNX Runtime runs neither as the converter
    writes them.
    """
    x, y = points[..., 0], points[..., 1]
    lower = (y[..., None, :] < y[..., :, None]) | (
        (y[..., None, :] == y[..., :, None]) & (x[..., None, :] < x[..., :, None])
    )
    start = corner = _least(lower, points)
    twice, closed = jnp.zeros(points.shape[:-2]), jnp.zeros(points.shape[:-2], bool)
    for _ in range(points.shape[-2]):
        way = points - corner[..., None, :]
        # The next corner leaves no other point to its right; of those in line it is the farthest.
        side, far = _turn(way[..., :, None, :], way[..., None, :, :]), jnp.square(way).sum(-1)
        better = (side < 0) | ((side == 0) & (far[..., None, :] > far[..., :, None]))
        following = _least(better, points)
        twice = twice + jnp.where(closed, 0.0, _turn(corner - start, following - start))
        closed |= (following == start).all(-1)
        corner = following
    return twice / 2


def _turn(a: jax.Array, b: jax.Array) -> jax.Array:
    """Twice the signed area between two vectors (..., 2); negative if b is to the right of a."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _least(better: jax.Array, points: jax.Array) -> jax.Array:
    """The first point that has the fewest better ones: (..., K, K), where [j, k] means that k is
    better than j, to (..., 2).
    """
    chosen = jnp.argmin(better.sum(-1), -1, keepdims=True) == jnp.arange(points.shape[-2])
    return jnp.where(chosen[..., None], points, 0).sum(-2)


def pose_size(points: jax.Array) -> jax.Array:
    """Square root of the hull's area: (..., K, 2) to (...,), never zero."""
    return jnp.sqrt(jnp.maximum(hull_area(points), SMALLEST))


def pose(points: jax.Array) -> jax.Array:
    """Keypoints (N, K, 2) normalised for position and size: centred and divided by sqrt(area of
    their hull).
    """
    return (points - points.mean(1, keepdims=True)) / pose_size(points)[:, None, None]


def pose_difference(a: jax.Array, b: jax.Array) -> jax.Array:
    """Root mean square distance of two poses, (N, K, 2) each, in units of the pose's size: (N,)."""
    return jnp.sqrt(jnp.square(pose(a) - pose(b)).sum(-1).mean(-1))


def relative(source: Keypoints, driving: Keypoints, first: Keypoints, scale: jax.Array | float = 1.0) -> Keypoints:
    """The source with the driver's motion since its first frame (Eq. 14 and 15); shifts
    are multiplied by `scale`.

    `scale` is 1, or sqrt(area of the source's hull / area of the first frame's hull) with
    --adapt_scale.
    """
    moved = {"value": source["value"] + scale * (driving["value"] - first["value"])}
    if "jacobian" in source:
        change = product(driving["jacobian"], inverse(first["jacobian"]))
        moved["jacobian"] = product(change, source["jacobian"])
    return moved
