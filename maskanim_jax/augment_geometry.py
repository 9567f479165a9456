"""How is a pair of frames resized and cropped at random? Both frames alike, inside jit, the side of the frames kept.

The released FOMM code's augmentation of moving GIFs. Frames are (N, S, S, 3) float32 in [0, 1].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict


def _window(first: jax.Array, factor: jax.Array, side: int) -> jax.Array:
    """Rows of a bilinear resize by `factor` (N,), cropped to `side` pixels from `first` (N,): weights (N, side, side).

    Beyond the resized frame its edge goes on.
    """
    factor = factor[:, None]
    out = jnp.clip(jnp.arange(side) + first[:, None], 0.0, side * factor - 1) + 0.5
    at = jnp.clip(out / factor - 0.5, 0.0, side - 1.0)
    return jax.nn.relu(1 - jnp.abs(at[..., None] - jnp.arange(side)))


def resize_and_crop(frames: jax.Array, factor: jax.Array, left: jax.Array, top: jax.Array) -> jax.Array:
    """Resizes each frame by its factor (N,), then crops S x S pixels from (`left`, `top`), in pixels of the resized frame."""
    side, high = frames.shape[1], jax.lax.Precision.HIGHEST
    rows, columns = _window(top, factor, side), _window(left, factor, side)
    frames = jnp.einsum("nih,nhwc->niwc", rows, frames, precision=high)
    return jnp.einsum("njw,niwc->nijc", columns, frames, precision=high)


def resize_pairs(
    key: jax.Array, source: jax.Array, driving: jax.Array, settings: ConfigDict
) -> tuple[jax.Array, jax.Array]:
    """One factor from U[resize_low, resize_high] for both frames of a pair, and one crop.

    A larger frame is cropped at a random place (in the middle, without `random_crop`), a smaller one set in the middle and its edges drawn out.
    """
    factor_key, left_key, top_key = jax.random.split(key, 3)
    count, side = source.shape[:2]
    factor = jax.random.uniform(factor_key, (count,), minval=settings.resize_low, maxval=settings.resize_high)
    spare = side * factor - side  # negative: so much is missing

    def place(key: jax.Array) -> jax.Array:
        share = jax.random.uniform(key, (count,)) if settings.random_crop else 0.5
        return jnp.floor(jnp.where(spare > 0, share, 0.5) * spare)

    left, top = place(left_key), place(top_key)
    return resize_and_crop(source, factor, left, top), resize_and_crop(driving, factor, left, top)
