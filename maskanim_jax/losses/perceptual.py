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
    scales: Sequence[int],
    taps: Sequence[str],
    dtype: DType = jnp.float32,
) -> list[jax.Array]:
    """The loss of each of `pictures` (N, S, S, 3) against `target` (N, S, S, 3), all RGB in [0, 1].

    Sum over scales and taps of the mean absolute difference of features (Eq. 9 and the sum below it), without the weight lambda_2. Target
    features are computed once and stopped.
    """
    target = jax.lax.stop_gradient(target)
    losses = [jnp.float32(0) for _ in pictures]
    for scale in scales:
        wanted = features(weights, antialiased_downscale(target, scale), taps, dtype)
        wanted = [jax.lax.stop_gradient(want).astype(jnp.float32) for want in wanted]
        for i, picture in enumerate(pictures):
            seen = features(weights, antialiased_downscale(picture, scale), taps, dtype)
            losses[i] += sum(
                jnp.abs(see.astype(jnp.float32) - want).mean() for see, want in zip(seen, wanted, strict=True)
            )
    return losses
