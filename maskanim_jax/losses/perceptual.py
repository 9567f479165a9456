"""How far is a frame from the target in VGG-19 features at several sizes?

L_VGG of Eq. 9 and its sum L_reconstruct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from maskanim_jax.losses.vgg import features
from maskanim_jax.nn.resize import antialiased_downscale
from maskanim_jax.nn.types import DType


def perceptual_pyramid(
    weights: Mapping[str, jax.Array],
    predictions: Sequence[jax.Array],
    target: jax.Array,
    pyramid_sizes: Sequence[Sequence[int]],
    layers: Sequence[str],
    dtype: DType = jnp.float32,
    remat: bool = False,
) -> list[jax.Array]:
    """The loss of each of `predictions` (N, S, S, 3) against `target` (N, S, S, 3) at its own
    `pyramid_sizes`, all RGB in [0, 1].

    It is the sum over sizes and layers of the mean absolute difference of features (Eq. 9
    and the sum below it), without the weight lambda_2. Target features are computed once for
    all predictions, and no gradient flows through them. `remat` recomputes a size's
    activations in the backward pass.
    """
    target = jax.lax.stop_gradient(target)
    losses = [jnp.float32(0) for _ in predictions]
    for size in sorted({size for sizes in pyramid_sizes for size in sizes}, reverse=True):
        with jax.named_scope(f"target{size}"):
            target_features = features(weights, antialiased_downscale(target, size), layers, dtype)

        def distance(
            prediction: jax.Array, target_features: list[jax.Array] = target_features, size: int = size
        ) -> jax.Array:
            pred_features = features(weights, antialiased_downscale(prediction, size), layers, dtype)
            return jnp.stack(
                [_distance(pred, wanted) for pred, wanted in zip(pred_features, target_features, strict=True)]
            ).sum()

        for i, prediction in enumerate(predictions):
            if size in pyramid_sizes[i]:
                with jax.named_scope(f"prediction{i}/features{size}"):
                    losses[i] += (jax.checkpoint(distance) if remat else distance)(prediction)
    return losses


def _distance(pred: jax.Array, target: jax.Array) -> jax.Array:
    """The mean absolute difference, in float32 for any type of features."""
    return jnp.abs(pred.astype(jnp.float32) - target.astype(jnp.float32)).mean()
