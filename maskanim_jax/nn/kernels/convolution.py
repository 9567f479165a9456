"""How is a convolution computed? As XLA's plain one up to rounding, with fewer operations.

- CPU with a C++ compiler: native code (nn/kernels/native).
- CPU without one: a wide 3x3 conv uses Winograd's algorithm (winograd.py). The gradient with
  respect to any other kernel is summed over blocks of rows, because XLA computes it as a conv whose
  kernel is the whole image, which does not fit in the cache. A 7x7 conv with few outputs, which
  would leave most of a vector register empty, becomes a 1x7 conv with 7 times as many outputs.
- Other platforms: XLA's plain conv.

benchmarks/convolution.py prints the ratios.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from maskanim_jax.nn.kernels import winograd
from maskanim_jax.nn.kernels.native import ffi as native
from maskanim_jax.nn.kernels.per_device import BATCH, WHOLE, apply_per_device

ConvFn = Callable[[jax.Array, jax.Array], jax.Array]
LAYOUT = ("NHWC", "HWIO", "NHWC")
BLOCK_BYTES = 2 << 20
"""Bytes of both images that a block of rows may use, so that it stays in a core's cache."""
BLOCKING_MIN_PIXELS = 128 * 128
"""Smaller images are one block: for them the plain gradient was as fast or faster."""
WINOGRAD_MIN_CHANNELS, WINOGRAD_MIN_ROWS = 64, 8
"""On a CPU, Winograd's transforms pay off for 3x3 kernels with at least this many inputs and
outputs, and images with at least this many rows.
"""
THIN_MAX_OUTPUTS, THIN_MIN_ROWS = 4, 5
"""On a CPU, kernels with at most this many outputs and at least this
many rows are split by rows.
"""


def _plain(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


def by_platform(cpu: Callable[..., Any], others: Callable[..., Any]) -> Callable[..., Any]:
    """A function that calls `cpu` on a CPU and `others` elsewhere; decided when it is lowered."""
    return lambda *inputs: lax.platform_dependent(*inputs, cpu=cpu, default=others)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(x: jax.Array, kernel: jax.Array, padding: str = "SAME") -> jax.Array:
    """(N, H, W, I) by (K, K, I, O), stride 1: (N, H, W, O), or (N, H - K + 1, W - K + 1,
    O) with padding "VALID".
    """
    plain = functools.partial(_plain, padding=padding)
    if native.usable(x):
        return by_platform(functools.partial(_compiled, padding=padding), plain)(x, kernel)
    if _thin(kernel):
        return by_platform(functools.partial(thin_conv2d, padding=padding), plain)(x, kernel)
    if _use_winograd(x, kernel, padding):
        return by_platform(winograd.conv2d, plain)(x, kernel)
    return plain(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array, padding: str) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(x, kernel, padding), (x, kernel)


def _backward(padding: str, residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def plain(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _to_x(x, kernel, g, padding), _kernel_gradient(x, g, size=kernel.shape[0], padding=padding)

    def on_cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        if native.usable(x):
            size, before = kernel.shape[0], _before(kernel, padding)
            to_x = native.convolution(g, kernel, x.shape[1:3], size - 1 - before, transpose=True)
            return to_x, native.kernel_gradient(x, g, size, before)
        if _thin(kernel):
            return jax.vjp(functools.partial(thin_conv2d, padding=padding), x, kernel)[1](g)
        if _use_winograd(x, kernel, padding):
            return winograd.input_gradient(kernel, g), summed(winograd.kernel_gradient, x, g)
        by_blocks = functools.partial(_blocks, size=kernel.shape[0], padding=padding)
        return _to_x(x, kernel, g, padding), summed(by_blocks, x, g)

    return by_platform(on_cpu, plain)(*residuals, g)


conv2d.defvjp(_forward, _backward)


def _before(kernel: jax.Array, padding: str) -> int:
    """Number of zeros before the first row and column."""
    return (kernel.shape[0] - 1) // 2 if padding == "SAME" else 0


def _compiled(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    less = kernel.shape[0] - 1 if padding == "VALID" else 0
    return native.convolution(x, kernel, (x.shape[1] - less, x.shape[2] - less), _before(kernel, padding))


def _thin(kernel: jax.Array) -> bool:
    return kernel.shape[-1] <= THIN_MAX_OUTPUTS and kernel.shape[0] >= THIN_MIN_ROWS


def _use_winograd(x: jax.Array, kernel: jax.Array, padding: str) -> bool:
    return (
        kernel.shape[:2] == (3, 3)
        and padding == "SAME"
        and x.dtype == jnp.float32
        and min(kernel.shape[2:]) >= WINOGRAD_MIN_CHANNELS
        and x.shape[1] >= WINOGRAD_MIN_ROWS
    )


def thin_conv2d(x: jax.Array, kernel: jax.Array, padding: str = "SAME") -> jax.Array:
    """`conv2d` for a CPU and few outputs: each kernel row gives separate outputs,
    which are shifted and added.
    """
    size, _, inputs, outputs = kernel.shape
    before, after = ((size - 1) // 2, size // 2) if padding == "SAME" else (0, 0)
    x = jnp.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)))
    beside = kernel.transpose(1, 2, 0, 3).reshape(1, size, inputs, size * outputs)
    y = lax.conv_general_dilated(x, beside, (1, 1), ((0, 0), (before, after)), dimension_numbers=LAYOUT)
    height = y.shape[1] - size + 1
    rows = [y[:, row : row + height, :, row * outputs : (row + 1) * outputs] for row in range(size)]
    return sum(rows[1:], rows[0])


def _to_x(x: jax.Array, kernel: jax.Array, g: jax.Array, padding: str) -> jax.Array:
    """The gradient with respect to the input."""
    return jax.linear_transpose(lambda x: _plain(x, kernel, padding), x)(g)[0]


def _kernel_gradient(x: jax.Array, g: jax.Array, *, size: int, padding: str) -> jax.Array:
    """The gradient with respect to the kernel (K, K, I, O), computed by XLA."""
    like = jax.ShapeDtypeStruct((size, size, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _plain(x, kernel, padding), like)(g)[0]


def summed(gradient: ConvFn, x: jax.Array, g: jax.Array) -> jax.Array:
    """A kernel's gradient, computed on each device for its part of the batch and
    summed over the devices once.
    """
    x, g = lax.optimization_barrier((x, g))  # otherwise their producers would be recomputed for every tap
    return apply_per_device(gradient, (BATCH, BATCH), WHOLE, x.shape[0])(x, g)


def _blocks(x: jax.Array, g: jax.Array, size: int, padding: str) -> jax.Array:
    """The kernel's gradient, summed over blocks of rows."""
    before, after = ((size - 1) // 2, size // 2) if padding == "SAME" else (0, 0)
    x = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    of_a_row = g.shape[0] * g.shape[2] * (x.shape[-1] + g.shape[-1]) * g.dtype.itemsize
    rows = max(1, BLOCK_BYTES // of_a_row) if g.shape[1] * g.shape[2] >= BLOCKING_MIN_PIXELS else g.shape[1]
    parts = [
        _kernel_gradient(x[:, start : start + rows + size - 1], g[:, start : start + rows], size=size, padding="VALID")
        for start in range(0, g.shape[1], rows)
    ]
    return sum(parts[1:], parts[0])
