"""What are P_train and P_test? The perturbations that remove the driver's identity from a mask.

Paper, Eq. 2 and 5 and the paragraph on P_train in section 3.1. Both work on masks quantised to grey
levels 0 to 255 and pass no gradient. Everything runs inside jit: strips and whole masks are scaled
along one axis by a small resampling matrix per mask, without gathers or host callbacks. Levels are
whole numbers in float32, whatever the precision of the networks.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision
from ml_collections import ConfigDict

SUBPIXEL = 32
"""Source positions are rounded to 1/32 pixel, as in the image library (fixed-point bilinear) that
the released code uses.
"""


def quantize(mask: jax.Array) -> jax.Array:
    """Quantises [0, 1] to grey levels 0..255 (truncated, float32); stops gradients."""
    return jnp.floor(jax.lax.stop_gradient(mask).astype(jnp.float32) * 255.0)


def resampling_matrix(first: jax.Array, last: jax.Array, scale: jax.Array) -> jax.Array:
    """Bilinear scaling of strips about their own centres, canvas unchanged, zeros outside: out =
    matrix @ in.

    `first` and `last` (W,) hold for each output pixel the first and last pixel of its strip,
    `scale` (W,) the strip's factor; more than 1 enlarges. Returns (W, W). Centres lie halfway
    between a strip's first and last pixel.
    """
    pixel = jnp.arange(first.shape[0], dtype=jnp.float32)
    centre = (first + last) / 2
    wanted = jnp.round((centre + (pixel - centre) / scale) * SUBPIXEL) / SUBPIXEL
    weight = jnp.maximum(0.0, 1.0 - jnp.abs(wanted[:, None] - pixel[None, :]))
    inside = (pixel[None, :] >= first[:, None]) & (pixel[None, :] <= last[:, None])
    return jnp.where(inside, weight, 0.0)


def _whole(side: int, scale: jax.Array) -> jax.Array:
    """The resampling matrix of a single strip over the whole axis."""
    return resampling_matrix(jnp.zeros(side), jnp.full((side,), side - 1.0), jnp.broadcast_to(scale, (side,)))


def _along_x(levels: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.round(jnp.einsum("xj,yj->yx", matrix, levels, precision=Precision.HIGHEST))


def _along_y(levels: jax.Array, matrix: jax.Array) -> jax.Array:
    return jnp.round(jnp.einsum("yj,jx->yx", matrix, levels, precision=Precision.HIGHEST))


def _random_strips(key: jax.Array, side: int, settings: ConfigDict) -> jax.Array:
    """The matrix that cuts an axis into strips at distinct random places and scales each by its own
    random factor.
    """
    place_key, scale_key = jax.random.split(key)
    places = jnp.arange(round(settings.cut_low * side), round(settings.cut_high * side) + 1)
    cuts = jnp.sort(jax.random.permutation(place_key, places)[: settings.strips - 1])
    strip = jnp.searchsorted(cuts, jnp.arange(side), side="right")  # a cut is the first pixel of the strip after it
    first = jnp.concatenate([jnp.zeros(1), cuts.astype(jnp.float32)])[strip]
    last = jnp.concatenate([cuts.astype(jnp.float32) - 1, jnp.full((1,), side - 1.0)])[strip]
    scales = jax.random.uniform(scale_key, (settings.strips,), minval=1 - settings.scale, maxval=1 + settings.scale)
    return resampling_matrix(first, last, scales[strip])


def threshold_levels(levels: jax.Array, threshold: str | float) -> jax.Array:
    """Sets levels that are smaller than rho to zero; rho is a number from 0 to 255, or each mask's
    "median".

    The comparison is strict, as in the paper; outputs of the released code were measured to agree.
    """
    rho = _upper_median(levels) if threshold == "median" else jnp.float32(threshold)
    return jnp.where(levels < rho, 0.0, levels)


def _upper_median(levels: jax.Array) -> jax.Array:
    """Each mask's median level, the upper one of two.

    No level lies between the two, so thresholding at their mean gives the same result. Computed by
    bisection, since levels are whole numbers from 0 to 255; sorting took 4 % of an animated frame.
    """
    axes = (-3, -2, -1)
    below_it = math.prod(levels.shape[axis] for axis in axes) // 2
    median = jnp.zeros_like(levels[..., :1, :1, :1])
    for step in (128.0, 64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 1.0):
        below = jnp.sum(levels < median + step, axes, keepdims=True)
        median = jnp.where(below <= below_it, median + step, median)
    return median


@functools.cache
def _poisson_cumulative(rate: float) -> np.ndarray:
    """P(X <= k) of a Poisson variable for k = 0, 1, ... until it is 1 in float32."""
    counts = int(rate + 12 * rate**0.5 + 12)
    log_p = -rate + np.arange(counts) * np.log(rate) - np.cumsum(np.log(np.maximum(np.arange(counts), 1)))
    return np.cumsum(np.exp(log_p)).astype(np.float32)


def signed_poisson(key: jax.Array, shape: tuple[int, ...], rate: float) -> jax.Array:
    """A Poisson(rate) sample with a random sign for each element, float32: mean 0, standard
    deviation sqrt(rate^2 + rate).
    """
    if rate <= 0:
        return jnp.zeros(shape)
    value_key, sign_key = jax.random.split(key)
    counts = jnp.searchsorted(
        jnp.asarray(_poisson_cumulative(rate)), jax.random.uniform(value_key, shape), side="right"
    )
    return counts.astype(jnp.float32) * jax.random.rademacher(sign_key, shape, dtype=jnp.float32)


MIN_BLUR = 0.3
"""Pixels of the mask: a smaller standard deviation blurs nothing."""
EDGE_LEVELS = 0.15
"""After the blur, levels rise from 0 to 1 within this distance around the drawn threshold."""
THRESHOLDS = (0.2, 0.65)
"""The range of that threshold: a low one thickens the figure, a high one thins it."""
FOOT = 64
"""Grey level of the rows that belong to the figure; the lowest of them is its foot."""


def change_shape(levels: jax.Array, key: jax.Array, settings: ConfigDict) -> jax.Array:
    """Gives the figures in (N, L, L, 1) grey levels a random body shape; not in the paper.

    P_train's strips change a figure by a quarter at most, so that r leaves a driver as large as it
    is. Here the whole figure is scaled by a factor up to `shape_scale`, up or down, and each axis
    by up to `shape_stretch` more, about its foot: the lowest row and the centre of mass along x.
    With `shape_blur`, the largest standard deviation in pixels of the mask, it is then thickened or
    thinned: blurred and thresholded, both at random.
    """

    def change(one: jax.Array, key: jax.Array) -> jax.Array:
        scale_key, stretch_key, blur_key, threshold_key = jax.random.split(key, 4)
        side = one.shape[0]
        pixel = jnp.arange(side, dtype=jnp.float32)
        low, high = -math.log(settings.shape_scale), math.log(settings.shape_scale)
        power = jax.random.uniform(scale_key, (), minval=low, maxval=high)
        low, high = -math.log(settings.shape_stretch), math.log(settings.shape_stretch)
        along_x, along_y = jnp.exp(power + jax.random.uniform(stretch_key, (2,), minval=low, maxval=high))
        centre = jnp.sum(one * pixel) / jnp.maximum(jnp.sum(one), 1.0)
        foot = side - 1 - jnp.argmax((one.max(1) > FOOT)[::-1]).astype(jnp.float32)  # the last row if no row is
        matrix_x, matrix_y = _scaling(pixel, centre, along_x), _scaling(pixel, foot, along_y)
        if settings.shape_blur:
            sigma = jax.random.uniform(blur_key, (), minval=MIN_BLUR, maxval=max(MIN_BLUR, settings.shape_blur))
            blur = jnp.exp(-0.5 * ((pixel[:, None] - pixel[None, :]) / sigma) ** 2)
            blur = blur / jnp.exp(-0.5 * (jnp.arange(-side, side + 1) / sigma) ** 2).sum()  # zeros outside
            matrix_x, matrix_y = _product(blur, matrix_x), _product(blur, matrix_y)
        changed = _product(_product(matrix_y, one), matrix_x.T)
        if settings.shape_blur:
            threshold = jax.random.uniform(threshold_key, (), minval=THRESHOLDS[0], maxval=THRESHOLDS[1])
            changed = 255.0 * jnp.clip((changed / 255.0 - threshold) / EDGE_LEVELS + 0.5, 0.0, 1.0)
        return jnp.round(changed)

    return jax.vmap(change)(levels[..., 0], jax.random.split(key, levels.shape[0]))[..., None]


def _scaling(pixel: jax.Array, about: jax.Array, scale: jax.Array) -> jax.Array:
    """The bilinear matrix that scales an axis about a point; zeros outside."""
    wanted = about + (pixel - about) / scale
    return jnp.maximum(0.0, 1.0 - jnp.abs(wanted[:, None] - pixel[None, :]))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=Precision.HIGHEST)


def changes_shape(settings: ConfigDict) -> bool:
    """Whether `config.perturb` has `change_shape` at work."""
    return settings.shape_scale != 1.0 or settings.shape_stretch != 1.0 or settings.shape_blur != 0.0


def p_train(mask: jax.Array, key: jax.Array, settings: ConfigDict) -> jax.Array:
    """P_train of Eq. 5: perturbs (N, L, L, 1) masks in [0, 1], each with its own random draws.

    In order: vertical strips are scaled along x and the whole mask along y; horizontal strips along
    y and the whole mask along x; the threshold; Poisson noise with random sign, clipped to 0..255.
    `settings` is `config.perturb`; where it asks for it, `change_shape` comes first.
    """
    levels = quantize(mask)
    if changes_shape(settings):
        levels = change_shape(levels, jax.random.fold_in(key, 1), settings)
    side = levels.shape[1]

    def warp(one: jax.Array, key: jax.Array) -> jax.Array:
        keys = jax.random.split(key, 4)
        low, high = 1 - settings.whole_scale, 1 + settings.whole_scale
        one = _along_x(one, _random_strips(keys[0], side, settings))
        one = _along_y(one, _whole(side, jax.random.uniform(keys[1], (), minval=low, maxval=high)))
        one = _along_y(one, _random_strips(keys[2], side, settings))
        return _along_x(one, _whole(side, jax.random.uniform(keys[3], (), minval=low, maxval=high)))

    warp_key, noise_key = jax.random.split(key)
    levels = jax.vmap(warp)(levels[..., 0], jax.random.split(warp_key, levels.shape[0]))[..., None]
    levels = threshold_levels(levels, settings.threshold)
    return jnp.clip(levels + signed_poisson(noise_key, levels.shape, settings.noise), 0.0, 255.0) / 255.0


def p_test(mask: jax.Array, threshold: str | float, scale: float) -> jax.Array:
    """P_test of Eq. 2: threshold, then scaling about the centre
    (0.75 in the paper); zeros outside.
    """
    levels = threshold_levels(quantize(mask), threshold)
    if scale != 1.0:
        matrix = _whole(levels.shape[1], jnp.float32(scale))
        along = jnp.einsum("yj,njxc->nyxc", matrix, levels, precision=Precision.HIGHEST)
        levels = jnp.round(jnp.einsum("xj,nyjc->nyxc", matrix, along, precision=Precision.HIGHEST))
    return levels / 255.0
