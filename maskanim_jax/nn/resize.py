"""How are images resized?

D, U, and the anti-aliased downscale of m's input and of the loss pyramid.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np


def bilinear(x: jax.Array, size: int) -> jax.Array:
    """D and U of Eq. 2 to 4: bilinear resize of (N, H, W, C) to (N, size, size, C).

    Half-pixel centres and no anti-aliasing: a 4x D reads the centre 2x2 of each 4x4 patch.
    """
    if x.shape[1:3] == (size, size):
        return x
    return jax.image.resize(
        x, (x.shape[0], size, size, x.shape[3]), "linear", antialias=False, precision=jax.lax.Precision.HIGHEST
    )


@functools.cache
def _blur_and_step(side: int, step: int) -> np.ndarray:
    """The (side / step, side) matrix that blurs one axis with a Gaussian and keeps every
    `step`-th pixel from index 0.
    """
    sigma = (step - 1) / 2
    reach = round(4 * sigma)
    offsets = np.arange(-reach, reach + 1)
    taps = np.exp(-(offsets**2) / (2 * sigma**2))
    taps /= taps.sum()
    matrix = np.zeros((side // step, side), np.float32)
    for row in range(side // step):
        for offset, tap in zip(offsets, taps, strict=True):
            if 0 <= row * step + offset < side:  # zero padding
                matrix[row, row * step + offset] = tap
    return matrix


def antialiased_downscale(x: jax.Array, size: int) -> jax.Array:
    """Gaussian blur, then every k-th pixel from index 0, k = H / size:
    (N, H, H, C) to (N, size, size, C).

    sigma = (k - 1) / 2, kernel of 2 round(4 sigma) + 1, zero padding. The Gaussian is separable:
    one small matrix per axis.
    """
    side = x.shape[1]
    if side == size:
        return x
    if side % size:
        raise ValueError(f"a side of {side} is not a multiple of {size}")
    matrix = jnp.asarray(_blur_and_step(side, side // size), x.dtype)
    high = jax.lax.Precision.HIGHEST
    x = jnp.einsum("ih,nhwc->niwc", matrix, x, precision=high)
    return jnp.einsum("jw,niwc->nijc", matrix, x, precision=high)
