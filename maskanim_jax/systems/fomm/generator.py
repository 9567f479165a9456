"""How does FOMM's generator work? It warps the source's features and masks occluded parts (Eq. 8).

Paper, section 3.2: two down blocks, warping by the dense motion and multiplication by the occlusion
map, residual blocks, up blocks.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from maskanim_jax.nn.blocks import DownBlock, ResidualBlock, SameBlock, UpBlock
from maskanim_jax.nn.layers import Conv
from maskanim_jax.nn.resize import bilinear
from maskanim_jax.nn.types import DType
from maskanim_jax.nn.warp import grid_sample
from maskanim_jax.systems.fomm.dense_motion import DenseMotion
from maskanim_jax.systems.fomm.keypoints import Keypoints


class Generator(nnx.Module):
    """G of the paper, with the dense motion network inside, as in the released checkpoints."""

    def __init__(
        self, settings: ConfigDict, motion: ConfigDict, count: int, align_corners: bool, *, dtype: DType, rngs: nnx.Rngs
    ) -> None:
        """`settings`, `motion`: config.generator and config.motion; `count`: keypoints;
        `align_corners`: see `nn.warp`.
        """
        self.align_corners, self.steps, self.residuals = align_corners, settings.down_blocks, settings.residual_blocks
        self.dense_motion = DenseMotion(motion, count, align_corners, dtype=dtype, rngs=rngs)
        widths = [min(settings.max_width, settings.width * 2**i) for i in range(self.steps + 1)]
        self.first = SameBlock(3, widths[0], 7, dtype=dtype, rngs=rngs)
        for i in range(self.steps):
            setattr(self, f"down{i}", DownBlock(widths[i], widths[i + 1], dtype=dtype, rngs=rngs))
        for i in range(self.residuals):
            setattr(self, f"residual{i}", ResidualBlock(widths[-1], dtype=dtype, rngs=rngs))
        widths.reverse()
        for i in range(self.steps):
            setattr(self, f"up{i}", UpBlock(widths[i], widths[i + 1], dtype=dtype, rngs=rngs))
        self.last = Conv(widths[-1], 3, 7, dtype=dtype, rngs=rngs)

    def __call__(self, source: jax.Array, kp_source: Keypoints, kp_driving: Keypoints, train: bool) -> dict:
        """Source (N, S, S, 3) in [0, 1] and both keypoints to {"prediction", "deformed"} (N, S, S,
        3) beside the dense motion's own outputs.

        "deformed" is the warped source, for visualisation. One source (1, S, S, 3) for N driving
        keypoints is encoded once.
        """
        x = self.first(source, train)
        for i in range(self.steps):
            x = getattr(self, f"down{i}")(x, train)

        motion = self.dense_motion(source, kp_source, kp_driving, train)
        x = self._warp(x, motion["deformation"])
        if "occlusion" in motion:
            x = x * bilinear(motion["occlusion"], x.shape[1]).astype(x.dtype)

        for i in range(self.residuals):
            x = getattr(self, f"residual{i}")(x, train)
        for i in range(self.steps):
            x = getattr(self, f"up{i}")(x, train)
        prediction = jax.nn.sigmoid(self.last(x).astype(jnp.float32))
        return {**motion, "prediction": prediction, "deformed": self._warp(source, motion["deformation"])}

    def _warp(self, x: jax.Array, deformation: jax.Array) -> jax.Array:
        """f_w of Eq. 8, at the side of x."""
        x = jnp.broadcast_to(x, (deformation.shape[0], *x.shape[1:]))
        return grid_sample(x, bilinear(deformation, x.shape[1]), align_corners=self.align_corners, padding="zeros")
