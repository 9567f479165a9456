"""How are K local motions combined into a dense motion field and an occlusion map?

Paper, section 3.1 (Combining Local Motions), Eq. 4 to 7, and the occlusion map of section 3.2.
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
from maskanim_jax.nn.warp import coordinate_grid, grid_sample
from maskanim_jax.systems.fomm.keypoints import Keypoints
from maskanim_jax.systems.fomm.motion import gaussians, sparse_motions


class DenseMotion(nnx.Module):
    """P of the paper: K + 1 masks that select where each local motion
    applies, and the occlusion map.
    """

    def __init__(self, settings: ConfigDict, count: int, align_corners: bool, *, dtype: DType, rngs: nnx.Rngs) -> None:
        self.scale, self.variance, self.align_corners = settings.scale, settings.variance, align_corners
        # Of each motion, the background's included: its heatmap and the source that it has warped.
        self.body = EncoderDecoder(
            4 * (count + 1), settings.width, settings.num_blocks, settings.max_width, skips=True, dtype=dtype, rngs=rngs
        )
        self.mask = Conv(self.body.outputs, count + 1, 7, dtype=dtype, rngs=rngs)
        self.occlusion = Conv(self.body.outputs, 1, 7, dtype=dtype, rngs=rngs) if settings.occlusion else None

    def __call__(self, source: jax.Array, kp_source: Keypoints, kp_driving: Keypoints, train: bool) -> dict:
        """Source frame (N or 1, S, S, 3) and both keypoints to {"masks": (N, L, L, K + 1),
        "deformation": (N, L, L, 2)}.

        The deformation maps each point of the driver to its position in the source, x first, in
        [-1, 1] (Eq. 7). "occlusion" (N, L, L, 1) in [0, 1] is absent when `motion.occlusion` is
        off.
        """
        small = antialiased_downscale(source, round(source.shape[1] * self.scale))
        n, height, width = kp_driving["value"].shape[0], *small.shape[1:3]
        small = jnp.broadcast_to(small, (n, *small.shape[1:]))
        grid = coordinate_grid(height, width)
        motions = sparse_motions(grid, kp_source, kp_driving)

        # One reading of the whole stack of grids: (N, (K + 1) L, L).
        stacked = motions.reshape(n, -1, width, 2)
        warped = grid_sample(small, stacked, align_corners=self.align_corners, padding="zeros").reshape(
            n, -1, height, width, 3
        )
        # Eq. 6
        heatmaps = gaussians(kp_driving["value"], grid, self.variance) - gaussians(
            kp_source["value"], grid, self.variance
        )
        heatmaps = jnp.pad(heatmaps, ((0, 0), (0, 0), (0, 0), (1, 0)))  # zero for the background
        inputs = jnp.concatenate([heatmaps[..., None], jnp.moveaxis(warped, 1, 3)], -1)
        x = self.body(inputs.reshape(n, height, width, -1), train)

        masks = jax.nn.softmax(self.mask(x).astype(jnp.float32))
        found = {"masks": masks, "deformation": (masks[..., None] * jnp.moveaxis(motions, 1, 3)).sum(3)}
        if self.occlusion is not None:
            found["occlusion"] = jax.nn.sigmoid(self.occlusion(x).astype(jnp.float32))
        return found
