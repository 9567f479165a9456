"""How are 2 x 2 patches pooled? With windows on accelerators, with strided slices on a CPU,
whichever is fast there.

On a TPU an axis of length 2 fills 1/64 of a tile; on a CPU the gradient of a windowed maximum took
a tenth of a training step.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from maskanim_jax.nn.kernels.convolution import by_platform
from maskanim_jax.nn.kernels.upsampling import upsample

WINDOW = (1, 2, 2, 1)


@jax.custom_vjp
def average_pool(x: jax.Array) -> jax.Array:
    """Mean of 2 x 2 patches, (N, H, W, C) to (N, H/2, W/2, C). H and W are even."""
    return by_platform(patch_means, window_means)(x)


def _forward_means(x: jax.Array) -> tuple[jax.Array, None]:
    return average_pool(x), None


def _backward_means(_: None, g: jax.Array) -> tuple[jax.Array]:
    def windows(g: jax.Array) -> jax.Array:
        n, h, w, c = g.shape
        return jax.linear_transpose(window_means, jax.ShapeDtypeStruct((n, 2 * h, 2 * w, c), g.dtype))(g)[0]

    return (by_platform(lambda g: upsample(g * 0.25), windows)(g),)


average_pool.defvjp(_forward_means, _backward_means)


def patch_means(x: jax.Array) -> jax.Array:
    """`average_pool` for a CPU.

    A mean over two axes would be fused with the preceding ReLU, which materialises an extra image.
    """
    a, b, c, d = _patches(x)
    return (a + b + (c + d)) * 0.25


def window_means(x: jax.Array) -> jax.Array:
    """`average_pool` for accelerators."""
    return lax.reduce_window(x, 0.0, lax.add, WINDOW, WINDOW, "VALID") * 0.25


@jax.custom_vjp
def max_pool(x: jax.Array) -> jax.Array:
    """Maximum of 2 x 2 patches, (N, H, W, C) to (N, H/2, W/2, C); its gradient goes to the first of
    equal ones. H and W are even.
    """
    return by_platform(patch_maxima, window_maxima)(x)


def _forward(x: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    y = max_pool(x)
    return y, (x, y)


def _backward(residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array]:
    def windows(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
        return jax.vjp(window_maxima, x)[1](g)[0]

    return (by_platform(_to_first_maximum, windows)(*residuals, g),)


max_pool.defvjp(_forward, _backward)


def _patches(x: jax.Array) -> list[jax.Array]:
    """The four pixels of each patch, row by row, each (N, H/2, W/2, C)."""
    return [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]


def patch_maxima(x: jax.Array) -> jax.Array:
    """`max_pool` for a CPU."""
    a, b, c, d = _patches(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def window_maxima(x: jax.Array) -> jax.Array:
    """`max_pool` for accelerators."""
    return lax.reduce_window(x, -jnp.inf, lax.max, WINDOW, WINDOW, "VALID")


def _to_first_maximum(x: jax.Array, y: jax.Array, g: jax.Array) -> jax.Array:
    """The gradient with respect to x: g where x is the first maximum y of its patch, else 0."""
    free, parts = jnp.ones(y.shape, bool), []
    for pixel in _patches(x):
        here = free & (pixel == y)
        parts.append(jnp.where(here, g, 0))
        free &= ~here
    rows = [jnp.stack(parts[row : row + 2], 3) for row in (0, 2)]  # (N, H/2, W/2, 2, C)
    return jnp.stack(rows, 2).reshape(x.shape)
