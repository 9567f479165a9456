"""How are the two layers with parameters, convolution and batch norm, defined?

Flax's layers are not used because matching the released implementations needs PyTorch's
initial values, its unbiased running variance, and a compute type that keeps parameters
and statistics in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from maskanim_jax.nn.initializers import uniform
from maskanim_jax.nn.kernels.convolution import conv2d
from maskanim_jax.nn.kernels.upsampling import upsampled_conv2d
from maskanim_jax.nn.types import DType

EPSILON = 1e-5
MOMENTUM = 0.1
"""Weight of the new statistics in the running average (PyTorch's convention; 0.9 in Flax's)."""


class Conv(nnx.Module):
    """k x k convolution with bias, stride 1, NHWC x HWIO.

    Initial values as PyTorch's: U(-a, a) with a = 1 / sqrt(fan in).
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, padding: str = "SAME", dtype: DType = jnp.float32, rngs: nnx.Rngs
    ) -> None:
        bound = (size * size * inputs) ** -0.5
        self.kernel = nnx.Param(uniform(rngs, (size, size, inputs, outputs), bound))
        self.bias = nnx.Param(uniform(rngs, (outputs,), bound))
        self.padding = padding
        self.dtype = dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, inputs) to (N, H', W', outputs) in the compute type; H' = H, or H
        - k + 1 without padding.
        """
        y = conv2d(x.astype(self.dtype), self.kernel[...].astype(self.dtype), self.padding)
        return y + self.bias[...].astype(self.dtype)

    def apply_concat(self, parts: Sequence[jax.Array]) -> jax.Array:
        """Like calling it with `parts` concatenated along channels, but as a sum of convs, which
        avoids copying a large array.
        """
        kernel, first = self.kernel[...].astype(self.dtype), 0
        y = self.bias[...].astype(self.dtype)
        for part in parts:
            last = first + part.shape[-1]
            y = y + conv2d(part.astype(self.dtype), kernel[:, :, first:last], self.padding)
            first = last
        return y

    def apply_upsampled(self, x: jax.Array) -> jax.Array:
        """Like calling it with `x` upsampled 2x by nearest neighbour: (N, H, W, inputs)
        to (N, 2H, 2W, outputs).
        """
        y = upsampled_conv2d(x.astype(self.dtype), self.kernel[...].astype(self.dtype))
        return y + self.bias[...].astype(self.dtype)


class BatchNorm(nnx.Module):
    """Batch norm over N, H, W. Statistics are float32; under jit with a sharded batch they are
    those of the GLOBAL batch.

    `affine=False` omits scale and bias.
    """

    def __init__(self, channels: int, *, affine: bool = True) -> None:
        self.mean = nnx.BatchStat(jnp.zeros((channels,)))
        self.var = nnx.BatchStat(jnp.ones((channels,)))
        if affine:
            self.scale = nnx.Param(jnp.ones((channels,)))
            self.bias = nnx.Param(jnp.zeros((channels,)))
        self.affine = affine

    def as_affine(self) -> tuple[jax.Array, jax.Array]:
        """(factor, shift), each (C,), so that x * factor + shift is the evaluation mode."""
        return self._affine(self.mean[...], self.var[...])

    def _affine(self, mean: jax.Array, var: jax.Array) -> tuple[jax.Array, jax.Array]:
        factor = jax.lax.rsqrt(var + EPSILON)
        if not self.affine:
            return factor, -mean * factor
        return factor * self.scale[...], self.bias[...] - mean * factor * self.scale[...]

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises (N, H, W, C).

        In training the batch's own statistics are used and the running ones updated.
        """
        if train:
            # One pass and one reduction over devices; centred on the running mean to avoid cancellation.
            around = self.mean[...]
            wide = x.astype(jnp.float32) - around
            shift = wide.mean((0, 1, 2))
            mean = around + shift
            var = jnp.maximum(jnp.square(wide).mean((0, 1, 2)) - jnp.square(shift), 0)
            count = x.size // x.shape[-1]
            unbiased = var * (count / max(count - 1, 1))
            self.mean.set_value((1 - MOMENTUM) * self.mean[...] + MOMENTUM * jax.lax.stop_gradient(mean))
            self.var.set_value((1 - MOMENTUM) * self.var[...] + MOMENTUM * jax.lax.stop_gradient(unbiased))
        else:
            mean, var = self.mean[...], self.var[...]
        factor, shift = self._affine(mean, var)
        return x * factor.astype(x.dtype) + shift.astype(x.dtype)
