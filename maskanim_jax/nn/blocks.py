"""What are the blocks that all networks are made of?

The order of layers is that of the released code; the paper's text puts ReLU before batch norm in
the encoding block (section 3, Architecture).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from maskanim_jax.nn.kernels.pooling import average_pool
from maskanim_jax.nn.layers import BatchNorm, Conv
from maskanim_jax.nn.types import DType


class Identity(nnx.Module):
    """Replaces a batch norm that was folded into the preceding conv."""

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns `x`; raises ValueError in training, which needs the batch norm."""
        if train:
            raise ValueError("a network whose batch norms are folded cannot be trained")
        return x


def _fold_batch_norm(conv: Conv, norm: BatchNorm) -> None:
    """Scales kernel and bias so that the conv alone gives the output of conv and batch
    norm in evaluation mode.
    """
    factor, shift = norm.as_affine()
    conv.kernel.set_value(conv.kernel[...] * factor)
    conv.bias.set_value(conv.bias[...] * factor + shift)


class SameBlock(nnx.Module):
    """k x k conv, batch norm, ReLU."""

    norm: BatchNorm | Identity

    def __init__(self, inputs: int, outputs: int, size: int = 3, *, dtype: DType = jnp.float32, rngs: nnx.Rngs) -> None:
        self.conv = Conv(inputs, outputs, size, dtype=dtype, rngs=rngs)
        self.norm = BatchNorm(outputs)

    def fold(self) -> None:
        """Folds the batch norm into the conv, for evaluation."""
        if isinstance(self.norm, BatchNorm):
            _fold_batch_norm(self.conv, self.norm)
            self.norm = Identity()

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, inputs) to (N, H, W, outputs)."""
        return nnx.relu(self.norm(self.conv(x), train))


class DownBlock(SameBlock):
    """3x3 conv, batch norm, ReLU, 2x2 average pool."""

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, inputs) to (N, H/2, W/2, outputs)."""
        return average_pool(super().__call__(x, train))


class UpBlock(SameBlock):
    """Nearest-neighbour 2x upsampling, 3x3 conv, batch norm, ReLU."""

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, inputs) to (N, 2H, 2W, outputs)."""
        return nnx.relu(self.norm(self.conv.apply_upsampled(x), train))


class ResidualBlock(nnx.Module):
    """Batch norm, ReLU, 3x3 conv, batch norm, ReLU, 3x3 conv, plus the block's input."""

    norm2: BatchNorm | Identity

    def __init__(self, channels: int, *, dtype: DType = jnp.float32, rngs: nnx.Rngs) -> None:
        self.norm1 = BatchNorm(channels)
        self.conv1 = Conv(channels, channels, 3, dtype=dtype, rngs=rngs)
        self.norm2 = BatchNorm(channels)
        self.conv2 = Conv(channels, channels, 3, dtype=dtype, rngs=rngs)

    def fold(self) -> None:
        """Folds the second batch norm into the preceding conv, for evaluation; the
        first one has none before it.
        """
        if isinstance(self.norm2, BatchNorm):
            _fold_batch_norm(self.conv1, self.norm2)
            self.norm2 = Identity()

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, channels), size and channels kept."""
        y = self.conv1(nnx.relu(self.norm1(x, train)))
        return x + self.conv2(nnx.relu(self.norm2(y, train)))


def encoder_widths(width: int, blocks: int, max_width: int) -> list[int]:
    """Channels after each down block: min(M, e 2^(i+1))."""
    return [min(max_width, width * 2 ** (i + 1)) for i in range(blocks)]


class EncoderDecoder(nnx.Module):
    """n down blocks, then n up blocks; with `skips` a U-Net.

    Down block i ends with min(M, e 2^(i+1)) channels, up block i (from n - 1 to 0) with
    min(M, e 2^i). With skips, the encoder's output of the same resolution (at the end: the raw
    input) is concatenated behind each up block's output.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        blocks: int,
        max_width: int,
        *,
        skips: bool = False,
        dtype: DType = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.blocks, self.skips = blocks, skips
        downs = encoder_widths(width, blocks, max_width)
        before = inputs
        for i, channels in enumerate(downs):
            setattr(self, f"down{i}", DownBlock(before, channels, dtype=dtype, rngs=rngs))
            before = channels
        for i in reversed(range(blocks)):
            channels = min(max_width, width * 2**i)
            setattr(self, f"up{i}", UpBlock(before, channels, dtype=dtype, rngs=rngs))
            skipped = (downs[i - 1] if i else inputs) if skips else 0
            before = channels + skipped
        self.outputs = before

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, inputs) to (N, H, W, outputs); H and W are multiples of 2^n."""
        return jnp.concatenate(self.parts(x, train), -1)

    def parts(self, x: jax.Array, train: bool) -> list[jax.Array]:
        """The output before concatenation: the last up block's channels and,
        with skips, the raw input.
        """
        encoded = [x]
        for i in range(self.blocks):
            with jax.named_scope(f"down{i}"):
                encoded.append(getattr(self, f"down{i}")(encoded[-1], train))
        parts = [encoded.pop()]
        for i in reversed(range(self.blocks)):
            with jax.named_scope(f"up{i}"):
                y = getattr(self, f"up{i}")(jnp.concatenate(parts, -1), train)
            parts = [y, encoded[i].astype(y.dtype)] if self.skips else [y]
        return parts
