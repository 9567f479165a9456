"""What is the architecture of the networks m, r, l and h?

Paper, section 3 (Architecture), with the sizes of the released code as defaults of
`configs/common.py`. Frames and masks are float32 in [0, 1]; S is the frame's side and L the mask's
(256 and 64 in the paper).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from maskanim_jax.nn.blocks import EncoderDecoder, ResidualBlock, SameBlock, UpBlock
from maskanim_jax.nn.layers import BatchNorm, Conv
from maskanim_jax.nn.resize import antialiased_downscale
from maskanim_jax.nn.types import DType

TEMPERATURE = "temperature"
"""Batch statistic of m and r that holds a temperature that changes with the step."""
EDGE = 3
"""Pixels that an unpadded 7x7 conv removes on each side."""


def temperature(step: jax.Array | int, settings: ConfigDict) -> jax.Array:
    """The temperature of m or r at a step, float32: from `temperature` to `temperature_end` by the
    same factor each step.
    """
    done = jnp.minimum(1.0, jnp.asarray(step, jnp.float32) / max(1, settings.temperature_steps))
    return jnp.float32(settings.temperature) * jnp.float32(settings.temperature_end / settings.temperature) ** done


def _temperature(settings: ConfigDict) -> nnx.BatchStat | float:
    """The temperature: a number, or a batch statistic if it changes with the step, so that
    checkpoints store it.
    """
    return nnx.BatchStat(jnp.float32(settings.temperature)) if settings.temperature_steps else settings.temperature


def _value(temperature: nnx.BatchStat | float) -> jax.Array | float:
    return temperature[...] if isinstance(temperature, nnx.BatchStat) else temperature


class MaskGenerator(nnx.Module):
    """m (Eq. 1): the mask generator, whose mask encodes the object's pose and shape."""

    def __init__(self, settings: ConfigDict, *, dtype: DType, rngs: nnx.Rngs) -> None:
        self.size = settings.size
        self.temperature = _temperature(settings)
        self.bordered = settings.border == "zero"
        self.body = EncoderDecoder(3, settings.width, settings.num_blocks, settings.max_width, dtype=dtype, rngs=rngs)
        self.last = Conv(self.body.outputs, 1, 7, padding="VALID" if self.bordered else "SAME", dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(1, affine=False) if settings.normalise_logits else None
        self.offset = settings.logit_offset

    def __call__(self, frame: jax.Array, train: bool) -> jax.Array:
        """(N, S, S, 3) frame to (N, L, L, 1) mask; its border of 3 pixels is zero when
        `mask.border` is "zero".
        """
        small = antialiased_downscale(frame, self.size)
        logits = self.last(self.body(small, train)).astype(jnp.float32)
        if self.norm is not None:
            logits = self.norm(logits, train) - self.offset
        mask = jax.nn.sigmoid(logits / _value(self.temperature))
        return jnp.pad(mask, ((0, 0), (EDGE, EDGE), (EDGE, EDGE), (0, 0))) if self.bordered else mask


class MaskRefiner(nnx.Module):
    """r (Eq. 2 and 5): the refinement network; adds the source's identity to the perturbed driving
    mask.
    """

    def __init__(self, settings: ConfigDict, *, dtype: DType, rngs: nnx.Rngs) -> None:
        self.temperature = _temperature(settings)
        self.body = EncoderDecoder(5, settings.width, settings.num_blocks, settings.max_width, dtype=dtype, rngs=rngs)
        self.last = Conv(self.body.outputs, 1, 7, dtype=dtype, rngs=rngs)

    def __call__(self, source: jax.Array, source_mask: jax.Array, perturbed: jax.Array, train: bool) -> jax.Array:
        """D(s) (N, L, L, 3), m_s and perturbed m(d) (N, L, L, 1) to the
        refined mask (N, L, L, 1).
        """
        x = jnp.concatenate([source, source_mask, perturbed], -1)
        return jax.nn.sigmoid(self.last(self.body(x, train)).astype(jnp.float32) / _value(self.temperature))


class CoarseGenerator(nnx.Module):
    """l (Eq. 3 and 6): the low-resolution generator. Its up blocks bring L up to S."""

    def __init__(self, settings: ConfigDict, ups: int, *, dtype: DType, rngs: nnx.Rngs) -> None:
        self.first = SameBlock(5, settings.width, 7, dtype=dtype, rngs=rngs)
        self.residuals, self.ups = settings.residual_blocks, ups
        for i in range(self.residuals):
            setattr(self, f"residual{i}", ResidualBlock(settings.width, dtype=dtype, rngs=rngs))
        width = settings.width
        for i in range(ups):
            setattr(self, f"up{i}", UpBlock(width, width // 2, dtype=dtype, rngs=rngs))
            width //= 2
        self.last = Conv(width, 3, 7, dtype=dtype, rngs=rngs)

    def __call__(self, source: jax.Array, source_mask: jax.Array, driving_mask: jax.Array, train: bool) -> jax.Array:
        """D(s) (N, L, L, 3), m_s and m_d (N, L, L, 1) to the coarse frame c (N, S, S, 3)."""
        x = self.first(jnp.concatenate([source, source_mask, driving_mask], -1), train)
        for block in (*(f"residual{i}" for i in range(self.residuals)), *(f"up{i}" for i in range(self.ups))):
            with jax.named_scope(block):
                x = getattr(self, block)(x, train)
        return jax.nn.sigmoid(self.last(x).astype(jnp.float32))


class FineGenerator(nnx.Module):
    """h (Eq. 4 and 7): the high-resolution generator, a U-Net."""

    def __init__(self, settings: ConfigDict, *, dtype: DType, rngs: nnx.Rngs) -> None:
        self.body = EncoderDecoder(
            8, settings.width, settings.num_blocks, settings.max_width, skips=True, dtype=dtype, rngs=rngs
        )
        self.last = Conv(self.body.outputs, 3, 7, dtype=dtype, rngs=rngs)

    def __call__(
        self, source: jax.Array, source_mask: jax.Array, coarse: jax.Array, driving_mask: jax.Array, train: bool
    ) -> jax.Array:
        """s (N, S, S, 3), U(m_s) (N, S, S, 1), c (N, S, S, 3), U(m_d) (N, S, S, 1) to the fine
        frame f (N, S, S, 3).
        """
        x = jnp.concatenate([source, source_mask, coarse, driving_mask], -1)
        return jax.nn.sigmoid(self.last.apply_concat(self.body.parts(x, train)).astype(jnp.float32))
