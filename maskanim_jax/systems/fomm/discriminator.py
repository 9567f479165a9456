"""How does the discriminator of the adversarial configs work?

As in the released code: four unpadded 4x4 convs with instance norm and pooling, then a 1x1 conv.
Its input is the full-size frame and, with `config.discriminator.keypoints`, the driving keypoints
drawn as Gaussians.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import Precision, stop_gradient
from ml_collections import ConfigDict

from maskanim_jax.nn.kernels.pooling import average_pool
from maskanim_jax.nn.layers import EPSILON, Conv
from maskanim_jax.nn.types import DType
from maskanim_jax.nn.warp import coordinate_grid
from maskanim_jax.systems.fomm.motion import gaussians

SLOPE = 0.2
"""Slope of the leaky ReLU below zero."""
SMALLEST_NORM = 1e-12
"""Lower bound of the norm when a vector is normalised."""


def _unit(vector: jax.Array) -> jax.Array:
    return vector / jnp.maximum(jnp.linalg.norm(vector), SMALLEST_NORM)


class SpectralConv(Conv):
    """A conv without padding whose kernel is divided by its largest singular value (Miyato et al.
    2018).

    The kernel is treated as a matrix of outputs x (inputs, height, width). Its singular vectors `u`
    (outputs,) and `v` are batch statistics: each training call makes one step of power iteration,
    and evaluation leaves them unchanged. No gradients pass through them.
    """

    def __init__(self, inputs: int, outputs: int, size: int, *, dtype: DType = jnp.float32, rngs: nnx.Rngs) -> None:
        super().__init__(inputs, outputs, size, padding="VALID", dtype=dtype, rngs=rngs)
        self.u = nnx.BatchStat(_unit(jax.random.normal(rngs.params(), (outputs,))))
        self.v = nnx.BatchStat(_unit(jax.random.normal(rngs.params(), (inputs * size * size,))))

    def largest_singular_value(self, train: bool) -> jax.Array:
        """sigma = u W v, a float32 scalar; training updates u and v first."""
        kernel = self.kernel[...]
        matrix = kernel.transpose(3, 2, 0, 1).reshape(kernel.shape[-1], -1)
        if train:
            still = stop_gradient(matrix)
            self.v.set_value(_unit(jnp.matmul(self.u[...], still, precision=Precision.HIGHEST)))
            self.u.set_value(_unit(jnp.matmul(still, self.v[...], precision=Precision.HIGHEST)))
        u, v = stop_gradient(self.u[...]), stop_gradient(self.v[...])
        return jnp.matmul(u, jnp.matmul(matrix, v, precision=Precision.HIGHEST), precision=Precision.HIGHEST)

    def normalised(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, inputs) to (N, H', W', outputs)."""
        return self(x / self.largest_singular_value(train))  # a conv is linear: dividing its input divides its kernel


def _conv(inputs: int, outputs: int, size: int, spectral: bool, dtype: DType, rngs: nnx.Rngs) -> Conv:
    if spectral:
        return SpectralConv(inputs, outputs, size, dtype=dtype, rngs=rngs)
    return Conv(inputs, outputs, size, padding="VALID", dtype=dtype, rngs=rngs)


def _convolve(conv: Conv, x: jax.Array, train: bool) -> jax.Array:
    return conv.normalised(x, train) if isinstance(conv, SpectralConv) else conv(x)


class InstanceNorm(nnx.Module):
    """Normalises each channel of each frame over H and W, then scale and bias; the same in training
    and evaluation.
    """

    def __init__(self, channels: int) -> None:
        self.scale = nnx.Param(jnp.ones((channels,)))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, channels), size and type kept; the statistics are float32."""
        wide = x.astype(jnp.float32)
        mean = wide.mean((1, 2), keepdims=True)
        var = jnp.square(wide - mean).mean((1, 2), keepdims=True)
        factor = jax.lax.rsqrt(var + EPSILON) * self.scale[...]
        return (wide * factor + (self.bias[...] - mean * factor)).astype(x.dtype)


class Block(nnx.Module):
    """Unpadded 4x4 conv, optional instance norm, leaky ReLU, optional 2x2 average pool."""

    def __init__(
        self, inputs: int, outputs: int, *, norm: bool, pool: bool, spectral: bool, dtype: DType, rngs: nnx.Rngs
    ) -> None:
        self.conv = _conv(inputs, outputs, 4, spectral, dtype, rngs)
        self.norm = InstanceNorm(outputs) if norm else None
        self.pool = pool

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """(N, H, W, inputs) to (N, H - 3, W - 3, outputs), or half of that, rounded down, with the
        pool.
        """
        y = _convolve(self.conv, x, train)
        if self.norm is not None:
            y = self.norm(y)
        y = nnx.leaky_relu(y, SLOPE)
        if not self.pool:
            return y
        height, width = y.shape[1] // 2 * 2, y.shape[2] // 2 * 2  # a last odd row or column is dropped
        return average_pool(y[:, :height, :width])


class Discriminator(nnx.Module):
    """Feature maps of every block and a map of realness scores (least
    squares: 1 real, 0 generated).
    """

    def __init__(self, settings: ConfigDict, keypoints: int, *, dtype: DType, rngs: nnx.Rngs) -> None:
        """`settings` is `config.discriminator`; `keypoints` is their count, used when
        `settings.keypoints`.
        """
        self.blocks = settings.num_blocks
        self.variance = settings.variance
        self.sees_keypoints = settings.keypoints
        channels = 3 + (keypoints if settings.keypoints else 0)
        for i in range(self.blocks):
            outputs = min(settings.max_width, settings.width * 2 ** (i + 1))
            block = Block(
                channels,
                outputs,
                norm=i > 0,
                pool=i < self.blocks - 1,
                spectral=settings.spectral_norm,
                dtype=dtype,
                rngs=rngs,
            )
            setattr(self, f"block{i}", block)
            channels = outputs
        self.last = _conv(channels, 1, 1, settings.spectral_norm, dtype, rngs)

    def __call__(self, frame: jax.Array, points: jax.Array, train: bool) -> dict[str, list[jax.Array] | jax.Array]:
        """(N, S, S, 3) frames in [0, 1] and (N, K, 2) keypoints, whose gradient is stopped.

        Returns "features", the maps of all blocks (N, H_i, W_i, C_i) float32, and "prediction" (N,
        H, W, 1) float32.
        """
        x = frame
        if self.sees_keypoints:
            grid = coordinate_grid(*frame.shape[1:3])
            x = jnp.concatenate([x, gaussians(stop_gradient(points), grid, self.variance)], -1)
        features = []
        for i in range(self.blocks):
            x = getattr(self, f"block{i}")(x, train)
            features.append(x.astype(jnp.float32))
        return {"features": features, "prediction": _convolve(self.last, x, train).astype(jnp.float32)}
