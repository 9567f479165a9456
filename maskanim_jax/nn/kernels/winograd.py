"""How does a CPU compute a 3x3 convolution with half the multiplications? By
Winograd's F(4, 3) along the rows.

Four output rows need six input rows. Their products with three kernel rows are products of
polynomials, which are determined by their values at six points (0, 1, -1, 2, -2, infinity:
Lavin and Gray 2016). Six 1x3 convolutions of combined rows therefore replace twelve. The
transposed combinations give the gradients. The result differs from the plain one by
rounding, about 1e-5 of its size.

Along both axes a quarter of the multiplications would be enough, in 36 small products; the extra
copies cost what that saves.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

EINSUM_MAX_PIXELS = 32 * 32
"""Images with at most this many pixels use one batched product, which compiles faster; for larger
ones six convolutions are faster.
"""
Matrix = tuple[tuple[float, ...], ...]
INPUT_TRANSFORM: Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
"""Six input rows to six points."""
KERNEL_TRANSFORM: Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
"""Three kernel rows to six points."""
OUTPUT_TRANSFORM: Matrix = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
"""Six points to four output rows."""


def conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 conv with zero padding: (N, H, W, I) by (3, 3, I, O) to (N, H, W, O)."""
    height, width = x.shape[1:3]
    taps = _combined(KERNEL_TRANSFORM, kernel)
    products: jax.Array | list[jax.Array]
    if height * width <= EINSUM_MAX_PIXELS:
        products = jnp.einsum("pnhwi,pio->pnhwo", _beside(x), taps.reshape(6, -1, kernel.shape[-1]))
    else:
        layout = ("NHWC", "HWIO", "NHWC")
        pairs = zip(_picture_at_points(x), lax.optimization_barrier(taps), strict=True)
        products = [
            lax.conv_general_dilated(rows, tap[None], (1, 1), ((0, 0), (1, 1)), dimension_numbers=layout)
            for rows, tap in pairs
        ]
    y = _combined(OUTPUT_TRANSFORM, lax.optimization_barrier(products), axis=2)
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :height]


def input_gradient(kernel: jax.Array, g: jax.Array) -> jax.Array:
    """`conv2d` pulled back to x: (3, 3, I, O) and (N, H, W, O) to (N, H, W, I)."""
    # A transposition alone takes a few ms; fused with the reversal or its consumer it takes longer than the convolutions.
    kernel = lax.optimization_barrier(kernel.swapaxes(2, 3))
    parts = [kernel[row : row + 1, column : column + 1] for row in (2, 1, 0) for column in (2, 1, 0)]
    return conv2d(g, lax.optimization_barrier(jnp.concatenate(parts, 1)).reshape(kernel.shape))


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """`conv2d` pulled back to the kernel: (N, H, W, I) and (N, H, W, O) to (3, 3, I, O)."""
    g = jnp.pad(g, ((0, 0), (0, -g.shape[1] % 4), (0, 0), (0, 0)))
    result = lax.optimization_barrier(_combined(_transposed(OUTPUT_TRANSFORM), [g[:, row::4] for row in range(4)]))
    products = jnp.einsum("pnhwi,pnhwo->pio", _beside(x), result)
    return _combined(_transposed(KERNEL_TRANSFORM), products.reshape(6, 3, x.shape[-1], -1))


def _beside(x: jax.Array) -> jax.Array:
    """`_picture_at_points` with the pixels that a kernel row reads concatenated:
    (6, N, ceil(H / 4), W, 3C).
    """
    rows = _picture_at_points(jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0))))
    return lax.optimization_barrier(jnp.concatenate([rows[..., tap : tap + x.shape[2], :] for tap in range(3)], -1))


def _picture_at_points(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (6, N, ceil(H / 4), W, C).

    The barrier computes it once; otherwise each conv would recompute it.
    """
    strips = -(-x.shape[1] // 4)
    x = lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 4 * strips - x.shape[1] + 1), (0, 0), (0, 0))))
    rows = [lax.slice_in_dim(x, row, row + 4 * strips - 3, 4, axis=1) for row in range(6)]
    return lax.optimization_barrier(_combined(INPUT_TRANSFORM, rows))


def _combined(matrix: Matrix, parts: Sequence[jax.Array] | jax.Array, axis: int = 0) -> jax.Array:
    """The matrix times the vector of parts, with the result's rows along a new
    axis; fused into one loop.
    """
    products = [
        jnp.asarray(column, part.dtype).reshape(-1, *(1,) * (part.ndim - axis)) * jnp.expand_dims(part, axis)
        for column, part in zip(_transposed(matrix), parts, strict=True)
    ]
    return sum(products[1:], products[0])


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))
