"""How does `--smooth` reduce flicker? It averages the driver's poses (masks, keypoints) over time.

The average is exponential and causal: each frame needs only itself and the state of the previous
one. Camera frames and videos of any length are therefore smoothed alike, whatever the batch size.
Off unless `--smooth` is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jax


def smooth(poses: Any, before: Any, first: jax.Array, strength: float) -> tuple[Any, Any]:
    """y_t = (1 - s) x_t + s y_(t-1) over a batch: (smoothed poses, the last of them).

    `poses` is a tree of (N, ...); `before`, a tree of (1, ...), is the last smoothed pose of the
    previous batch. If `first` (bool) is true there was none, and y_0 = x_0. `strength` is s.
    """
    import jax
    import jax.numpy as jnp

    def one(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = jnp.where(first, x[:1], y)
        age = jnp.arange(x.shape[0])[:, None] - jnp.arange(x.shape[0])
        weights = jnp.where(age >= 0, (1 - strength) * strength ** jnp.maximum(age, 0).astype(jnp.float32), 0.0)
        fading = strength ** jnp.arange(1.0, x.shape[0] + 1).reshape(-1, *[1] * (x.ndim - 1))
        averaged = jnp.einsum("ts,s...->t...", weights, x, precision=jax.lax.Precision.HIGHEST) + fading * y
        averaged = averaged.astype(x.dtype)
        return averaged, averaged[-1:]

    leaves, shape = jax.tree.flatten(poses)
    found = [one(x, y) for x, y in zip(leaves, jax.tree.leaves(before), strict=True)]
    smoothed, last = zip(*found, strict=True)
    return jax.tree.unflatten(shape, smoothed), jax.tree.unflatten(shape, last)
