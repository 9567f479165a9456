"""How is a frame warped? Bilinear sampling at a grid of coordinates, in PyTorch's two conventions.

FOMM, section 3.1 (the warped sources S^1 .. S^K) and f_w of Eq. 8. Coordinates are x first, in [-1,
1]. With `align_corners` -1 and 1 are the CENTRES of the outermost pixels (the PyTorch version of
FOMM's publication); without, they are the outer EDGES of these pixels (PyTorch's default today).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

Padding = Literal["zeros", "reflection"]


def coordinate_grid(height: int, width: int) -> jax.Array:
    """The identity grid (height, width, 2), x first, from -1 to 1, with both ends at pixel centres
    whatever the sampling convention.
    """
    x, y = jnp.linspace(-1.0, 1.0, width), jnp.linspace(-1.0, 1.0, height)
    return jnp.stack(jnp.meshgrid(x, y), -1)


def _reflect(position: jax.Array, low: float, span: float) -> jax.Array:
    """Folds positions into [low, low + span], mirrored at both ends."""
    folded = jnp.abs(position - low) % (2 * span)
    return low + jnp.minimum(folded, 2 * span - folded)


def _neighbours(
    position: jax.Array, size: int, align_corners: bool, padding: Padding
) -> list[tuple[jax.Array, jax.Array]]:
    """Along one axis: the two pixels (int32, inside the frame) next to each
    coordinate, with their weights.
    """
    position = (position + 1) / 2 * (size - 1) if align_corners else ((position + 1) * size - 1) / 2
    if padding == "reflection":
        low, span = (0.0, size - 1.0) if align_corners else (-0.5, float(size))
        position = jnp.clip(_reflect(position, low, max(span, 1.0)), 0.0, size - 1.0)
    else:
        position = jnp.clip(position, -2.0, size + 1.0)  # beyond are zeros; keeps the integers small
    first = jnp.floor(position)
    found = []
    for pixel, weight in ((first, first + 1 - position), (first + 1, position - first)):
        inside = (pixel >= 0) & (pixel <= size - 1)
        found.append((jnp.clip(pixel.astype(jnp.int32), 0, size - 1), jnp.where(inside, weight, 0.0)))
    return found


def grid_sample(frames: jax.Array, grid: jax.Array, *, align_corners: bool, padding: Padding) -> jax.Array:
    """Samples (N, H, W, C) at (N, H', W', 2): (N, H', W', C) of the frames'
    type; differentiable in both.

    Outside the frame, values are zero or those of the mirrored frame ("reflection").
    """
    n, height, width, channels = frames.shape
    pixels = frames.reshape(n, height * width, channels)
    grid = grid.astype(jnp.float32)
    columns = _neighbours(grid[..., 0], width, align_corners, padding)
    rows = _neighbours(grid[..., 1], height, align_corners, padding)

    def read(pixels: jax.Array, index: jax.Array) -> jax.Array:
        return pixels.at[index].get(mode="promise_in_bounds")

    total = jnp.zeros((*grid.shape[:-1], channels), frames.dtype)
    for row, row_weight in rows:
        for column, column_weight in columns:
            weight = (row_weight * column_weight).astype(frames.dtype)
            total += weight[..., None] * jax.vmap(read)(pixels, row * width + column)
    return total
