"""How are training frames augmented? Colour jitter A, swap, flip, random
resize and crop, inside jit.

Paper, section 3.1 (the augmentation A) and the released code's data set. Frames are (N, H, W, 3)
float32 RGB in [0, 1].
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

GREY = (0.299, 0.587, 0.114)
"""Weights of R, G, B in luma (ITU-R BT.601)."""


class Jitter(NamedTuple):
    """One draw per sample: factors (N,), hue shift (N,) in turns, and the order (N, 4) of the four
    changes.
    """

    brightness: jax.Array
    contrast: jax.Array
    saturation: jax.Array
    hue: jax.Array
    order: jax.Array


def draw_jitter(key: jax.Array, count: int, settings: ConfigDict, wider: float = 1.0) -> Jitter:
    """Draws factors from U[1 - x, 1 + x], hue shifts from U[-x, x] and a random order per sample.

    Each x is multiplied by `wider`.
    """
    keys = jax.random.split(key, 5)

    def around(key: jax.Array, centre: float, reach: float) -> jax.Array:
        return jax.random.uniform(key, (count,), minval=centre - wider * reach, maxval=centre + wider * reach)

    return Jitter(
        around(keys[0], 1.0, settings.brightness),
        around(keys[1], 1.0, settings.contrast),
        around(keys[2], 1.0, settings.saturation),
        around(keys[3], 0.0, settings.hue),
        jax.vmap(lambda key: jax.random.permutation(key, 4))(jax.random.split(keys[4], count)),
    )


def luma(frames: jax.Array) -> jax.Array:
    """Grey value, (..., 3) to (..., 1)."""
    return (frames * jnp.asarray(GREY)).sum(-1, keepdims=True)


def shift_hue(frames: jax.Array, turns: jax.Array) -> jax.Array:
    """Rotates the hue (HSV) by `turns` of the circle, which broadcasts against (..., 1).

    Saturation and value do not change.
    """
    value, low = frames.max(-1, keepdims=True), frames.min(-1, keepdims=True)
    chroma = value - low
    r, g, b = frames[..., :1], frames[..., 1:2], frames[..., 2:]
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sector = jnp.where(value == r, (g - b) / safe, jnp.where(value == g, 2 + (b - r) / safe, 4 + (r - g) / safe))
    hue = sector + 6 * turns  # in sixths of the circle
    # Each channel is value - chroma * clip(min(k, 4 - k), 0, 1) with k = (n + hue) mod 6 and n = 5, 3, 1 for R, G, B.
    k = (jnp.asarray([5.0, 3.0, 1.0]) + hue) % 6
    return value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def apply_jitter(frames: jax.Array, jitter: Jitter) -> jax.Array:
    """A(frames): brightness, contrast (about the mean luma), saturation (about each pixel's luma)
    and hue, clipped after each.
    """

    def one(frame: jax.Array, draw: Jitter) -> jax.Array:
        for position in range(4):
            changes = (
                frame * draw.brightness,
                luma(frame).mean() + (frame - luma(frame).mean()) * draw.contrast,
                luma(frame) + (frame - luma(frame)) * draw.saturation,
                shift_hue(frame, draw.hue),
            )
            frame = jnp.clip(jnp.stack(changes)[draw.order[position]], 0.0, 1.0)
        return frame

    return jax.vmap(one)(frames, jitter)


def random_negative(key: jax.Array, frames: jax.Array, probability: float) -> jax.Array:
    """Inverts each frame (1 - frame) independently with the given probability. Not in the paper."""
    negative = jax.random.bernoulli(key, probability, (frames.shape[0], 1, 1, 1))
    return jnp.where(negative, 1.0 - frames, frames)


def flip_pairs(
    key: jax.Array, source: jax.Array, driving: jax.Array, settings: ConfigDict
) -> tuple[jax.Array, jax.Array]:
    """Swaps source and driver with probability `swap_prob`; otherwise mirrors both with probability
    `mirror`.
    """
    swap_key, mirror_key = jax.random.split(key)
    shape = (source.shape[0], 1, 1, 1)
    swap = jax.random.bernoulli(swap_key, settings.swap_prob, shape)
    mirror = ~swap & jax.random.bernoulli(mirror_key, settings.flip_prob, shape)
    source, driving = jnp.where(swap, driving, source), jnp.where(swap, source, driving)
    return tuple(jnp.where(mirror, frames[:, :, ::-1], frames) for frames in (source, driving))  # type: ignore[return-value]


def _window(first: jax.Array, factor: jax.Array, side: int) -> jax.Array:
    """Weights (N, side, side) of a bilinear resize by `factor` (N,), cropped to `side` pixels from
    `first` (N,).

    Outside the resized frame, edge pixels are repeated.
    """
    factor = factor[:, None]
    out = jnp.clip(jnp.arange(side) + first[:, None], 0.0, side * factor - 1) + 0.5
    at = jnp.clip(out / factor - 0.5, 0.0, side - 1.0)
    return jax.nn.relu(1 - jnp.abs(at[..., None] - jnp.arange(side)))


def resize_and_crop(frames: jax.Array, factor: jax.Array, left: jax.Array, top: jax.Array) -> jax.Array:
    """Resizes each frame by its factor (N,), then crops S x S pixels from (`left`, `top`), in
    pixels of the resized frame.
    """
    side, high = frames.shape[1], jax.lax.Precision.HIGHEST
    rows, columns = _window(top, factor, side), _window(left, factor, side)
    frames = jnp.einsum("nih,nhwc->niwc", rows, frames, precision=high)
    return jnp.einsum("njw,niwc->nijc", columns, frames, precision=high)


def resize_pairs(
    key: jax.Array, source: jax.Array, driving: jax.Array, settings: ConfigDict
) -> tuple[jax.Array, jax.Array]:
    """One factor from U[resize_low, resize_high] for both frames of a pair, and one crop.

    A larger frame is cropped at a random position (centred without `random_crop`); a smaller one is
    centred and padded with its edge pixels.
    """
    factor_key, left_key, top_key = jax.random.split(key, 3)
    count, side = source.shape[:2]
    factor = jax.random.uniform(factor_key, (count,), minval=settings.resize_low, maxval=settings.resize_high)
    spare = side * factor - side  # negative if the frame is smaller

    def place(key: jax.Array) -> jax.Array:
        share = jax.random.uniform(key, (count,)) if settings.random_crop else 0.5
        return jnp.floor(jnp.where(spare > 0, share, 0.5) * spare)

    left, top = place(left_key), place(top_key)
    return resize_and_crop(source, factor, left, top), resize_and_crop(driving, factor, left, top)
