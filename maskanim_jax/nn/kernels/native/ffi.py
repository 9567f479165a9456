"""How does JAX call the compiled convolutions? float32, stride 1, NHWC by HWIO; each device handles
its own part of the batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from maskanim_jax.nn.kernels.native import build
from maskanim_jax.nn.kernels.per_device import BATCH, WHOLE, apply_per_device

Size = tuple[int, ...]


def usable(x: jax.Array) -> bool:
    """Whether the code being traced may call the compiled functions with this input."""
    known = all(isinstance(side, int) for side in x.shape)  # an exported function may leave the batch size open
    return known and x.dtype == jnp.float32 and bool(build.prefix())


def convolution(
    x: jax.Array, kernel: jax.Array, size: Size, pad: int, *, transpose: bool = False, upsample: bool = False
) -> jax.Array:
    """(N, H, W, I) by (K, K, I, O) to (N, *size, O), with `pad` zeros before
    the first row and column.

    `transpose`: the kernel is (K, K, O, I) and is used rotated by 180 degrees with inputs and
    outputs exchanged, which gives the gradient with respect to the input. `upsample`: x is first
    upsampled 2x by nearest neighbour.
    """

    def call(x: jax.Array, kernel: jax.Array) -> jax.Array:
        result = jax.ShapeDtypeStruct((x.shape[0], *size, kernel.shape[2 if transpose else 3]), x.dtype)
        return _call("convolution", result, pad, upsample)(x, kernel, transpose=bool(transpose))

    return apply_per_device(call, (BATCH, WHOLE), BATCH, x.shape[0])(x, kernel)


def kernel_gradient(x: jax.Array, g: jax.Array, size: int, pad: int, *, upsample: bool = False) -> jax.Array:
    """The gradient (K, K, I, O) of `convolution` with respect to the kernel, g (N, H', W', O);
    summed over the devices.
    """

    def call(x: jax.Array, g: jax.Array) -> jax.Array:
        result = jax.ShapeDtypeStruct((size, size, x.shape[3], g.shape[3]), x.dtype)
        return _call("kernel_gradient", result, pad, upsample)(x, g)

    return apply_per_device(call, (BATCH, BATCH), WHOLE, x.shape[0])(x, g)


def _call(name: str, result: jax.ShapeDtypeStruct, pad: int, upsample: bool) -> Callable[..., jax.Array]:
    function = jax.ffi.ffi_call(f"{build.prefix()}_{name}", result, vmap_method="sequential")
    places = {"top": np.int64(pad), "left": np.int64(pad), "upsample": np.int64(upsample)}
    return lambda *inputs, **more: function(*inputs, **places, **more)
