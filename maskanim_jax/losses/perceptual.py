"""How far is a picture from the truth, as VGG-19 sees it at several sizes? L_VGG of Eq. 9 and its sum L_reconstruct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from maskanim_jax.losses.vgg import features
from maskanim_jax.nn.resize import antialiased_downscale
from maskanim_jax.nn.types import DType


def perceptual_pyramid(
    weights: Mapping[str, jax.Array],
    pictures: Sequence[jax.Array],
    target: jax.Array,
    scales: Sequence[Sequence[int]],
    taps: Sequence[str],
    dtype: DType = jnp.float32,
    remat: bool = False,
) -> list[jax.Array]:
    """The loss of each of `pictures` (N, S, S, 3) against `target` (N, S, S, 3) at its own `scales`, all RGB in [0, 1].

    Sum over scales and taps of the mean absolute difference of features (Eq. 9 and the sum below it), without the weight lambda_2. Target
    features are computed once for all pictures and stopped. `remat` computes a scale's activations again in the backward pass.
    """
    target = jax.lax.stop_gradient(target)
    losses = [jnp.float32(0) for _ in pictures]
    for scale in sorted({scale for each in scales for scale in each}, reverse=True):
        with jax.named_scope(f"want{scale}"):
            wanted = features(weights, antialiased_downscale(target, scale), taps, dtype)

        def distance(picture: jax.Array, wanted: list[jax.Array] = wanted, scale: int = scale) -> jax.Array:
            seen = features(weights, antialiased_downscale(picture, scale), taps, dtype)
            return jnp.stack([_distance(see, want) for see, want in zip(seen, wanted, strict=True)]).sum()

        for i, picture in enumerate(pictures):
            if scale in scales[i]:
                with jax.named_scope(f"picture{i}/see{scale}"):
                    losses[i] += (jax.checkpoint(distance) if remat else distance)(picture)
    return losses


def _distance(seen: jax.Array, wanted: jax.Array) -> jax.Array:
    """Mean absolute difference in float32, whatever the type of the features."""
    return jnp.abs(seen.astype(jnp.float32) - wanted.astype(jnp.float32)).mean()
