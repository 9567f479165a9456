"""How does JAX call the compiled convolutions? float32, stride 1, NHWC by HWIO, each device by itself of its part of the batch."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from maskanim_jax.nn.kernels.native import build
from maskanim_jax.nn.kernels.per_device import BATCH, WHOLE, on_each_device

Size = tuple[int, ...]


def usable(x: jax.Array) -> bool:
    """Whether what is traced now may call them with this picture."""
    known = all(isinstance(side, int) for side in x.shape)  # an export may leave the batch open
    return known and x.dtype == jnp.float32 and bool(build.prefix())


def convolution(
    x: jax.Array, kernel: jax.Array, size: Size, before: int, *, turn: bool = False, up: bool = False
) -> jax.Array:
    """(N, H, W, I) by (K, K, I, O) to (N, *size, O), with `before` zeros before the first row and column.

    `turn`: the kernel is (K, K, O, I) and is turned by half a turn, inputs and outputs exchanged: the gradient with respect to a picture.
    `up`: x is upsampled 2x by nearest neighbour first.
    """

    def call(x: jax.Array, kernel: jax.Array) -> jax.Array:
        result = jax.ShapeDtypeStruct((x.shape[0], *size, kernel.shape[2 if turn else 3]), x.dtype)
        return _call("convolution", result, before, up)(x, kernel, turn=bool(turn))

    return on_each_device(call, (BATCH, WHOLE), BATCH, x.shape[0])(x, kernel)


def kernel_gradient(x: jax.Array, g: jax.Array, size: int, before: int, *, up: bool = False) -> jax.Array:
    """The gradient (K, K, I, O) of `convolution` with respect to the kernel, g (N, H', W', O); summed over the devices."""

    def call(x: jax.Array, g: jax.Array) -> jax.Array:
        result = jax.ShapeDtypeStruct((size, size, x.shape[3], g.shape[3]), x.dtype)
        return _call("kernel_gradient", result, before, up)(x, g)

    return on_each_device(call, (BATCH, BATCH), WHOLE, x.shape[0])(x, g)


def _call(name: str, result: jax.ShapeDtypeStruct, before: int, up: bool) -> Callable[..., jax.Array]:
    function = jax.ffi.ffi_call(f"{build.prefix()}_{name}", result, vmap_method="sequential")
    places = {"top": np.int64(before), "left": np.int64(before), "up": np.int64(up)}
    return lambda *inputs, **more: function(*inputs, **places, **more)
