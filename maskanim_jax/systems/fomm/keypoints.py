"""How are keypoints and their Jacobians detected?

Paper, section 3.1: a U-Net predicts a heatmap per keypoint. The keypoint T_{X<-R}(p_k) is the
heatmap's mean coordinate; the Jacobian of T_{X<-R} at p_k is the heatmap-weighted mean of four more
channels.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from maskanim_jax.nn.blocks import EncoderDecoder
from maskanim_jax.nn.layers import Conv
from maskanim_jax.nn.resize import antialiased_downscale
from maskanim_jax.nn.types import DType
from maskanim_jax.nn.warp import coordinate_grid

Keypoints = dict[str, jax.Array]
"""{"value": (N, K, 2), x first, in [-1, 1]; "jacobian": (N, K, 2, 2), absent in the zeroth-order
model}; float32.
"""


def weighted_mean(heatmaps: jax.Array, quantity: jax.Array) -> jax.Array:
    """Mean of (H, W, D) or (N, H, W, K or 1, D) over space under each of (N, H, W, K) heatmaps: (N,
    K, D).
    """
    if quantity.ndim == 3:
        quantity = quantity[None, :, :, None]
    return (heatmaps[..., None] * quantity).sum((1, 2))


def _undeformed(conv: Conv) -> Conv:
    """Initialises the conv so that Jacobians start as the identity: zero kernel, bias only."""
    conv.kernel.set_value(jnp.zeros_like(conv.kernel[...]))
    conv.bias.set_value(jnp.tile(jnp.asarray([1.0, 0.0, 0.0, 1.0]), conv.bias[...].shape[0] // 4))
    return conv


class KeypointDetector(nnx.Module):
    """Finds K keypoints, and their Jacobians unless `jacobian` is off (then the motion model is
    Monkey-Net's).
    """

    def __init__(self, settings: ConfigDict, *, dtype: DType, rngs: nnx.Rngs) -> None:
        self.count, self.scale, self.temperature = settings.num_keypoints, settings.scale, settings.temperature
        self.maps = 1 if settings.single_jacobian else settings.num_keypoints
        self.body = EncoderDecoder(
            3, settings.width, settings.num_blocks, settings.max_width, skips=True, dtype=dtype, rngs=rngs
        )
        self.kp = Conv(self.body.outputs, self.count, 7, padding="VALID", dtype=dtype, rngs=rngs)
        self.jacobian = (
            _undeformed(Conv(self.body.outputs, 4 * self.maps, 7, padding="VALID", dtype=dtype, rngs=rngs))
            if settings.jacobian
            else None
        )

    def __call__(self, frame: jax.Array, train: bool) -> Keypoints:
        """(N, S, S, 3) frame in [0, 1] to its keypoints."""
        x = self.body(antialiased_downscale(frame, round(frame.shape[1] * self.scale)), train)
        logits = self.kp(x).astype(jnp.float32)
        n, height, width, _ = logits.shape
        heatmaps = jax.nn.softmax((logits / self.temperature).reshape(n, -1, self.count), axis=1)
        heatmaps = heatmaps.reshape(n, height, width, self.count)
        found = {"value": weighted_mean(heatmaps, coordinate_grid(height, width))}
        if self.jacobian is not None:
            entries = self.jacobian(x).astype(jnp.float32).reshape(n, height, width, self.maps, 4)
            found["jacobian"] = weighted_mean(heatmaps, entries).reshape(n, self.count, 2, 2)
        return found
