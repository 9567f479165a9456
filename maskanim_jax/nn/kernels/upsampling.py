"""How is a 3x3 convolution of an upsampled image computed without creating that image?

Nearest-neighbour upsampling repeats pixels, so the 36 products of a source pixel are at most 16
different ones: one conv of the small image. With differences of neighbouring pixels 9 products
suffice; wide kernels on a CPU use that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from maskanim_jax.nn.kernels.convolution import LAYOUT, ConvFn, by_platform, conv2d, summed
from maskanim_jax.nn.kernels.native import ffi as native

FOLDING_MIN_PIXELS = 512
"""Batches with fewer source pixels are upsampled and convolved: folding a wide kernel would
cost more than it saves.
"""
DIFFERENCES_MIN_OUTPUTS = 128
"""Kernels with at least this many outputs use nine products; for narrower ones the extra additions
cost as much as it saves.
"""


def upsample(x: jax.Array) -> jax.Array:
    """Nearest neighbour, (N, H, W, C) to (N, 2H, 2W, C)."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


@jax.custom_vjp
def upsampled_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 conv, zero padding, of `x` upsampled 2x by nearest neighbour: (N, H, W, I) by
    (3, 3, I, O) to (N, 2H, 2W, O).
    """
    return by_platform(_on_cpu(x, kernel), dilated_conv2d)(x, kernel)


def _forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return upsampled_conv2d(x, kernel), (x, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def gradients(way: ConvFn) -> Callable[..., tuple[jax.Array, jax.Array]]:
        return lambda x, kernel, g: jax.vjp(way, x, kernel)[1](g)

    def by_differences(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        to_x = jax.linear_transpose(lambda x: differences_conv2d(x, kernel), x)(g)[0]
        like = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
        return to_x, summed(
            lambda x, g: jax.linear_transpose(lambda kernel: differences_conv2d(x, kernel), like)(g)[0], x, g
        )

    def compiled(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        wide = native.convolution(g, kernel, g.shape[1:3], 1, transpose=True)
        n, h, w, c = x.shape
        return wide.reshape(n, h, 2, w, 2, c).sum((2, 4)), native.kernel_gradient(x, g, 3, 1, upsample=True)

    way = _on_cpu(*residuals)
    own = {_compiled: compiled, differences_conv2d: by_differences}  # the others' gradients are JAX's own
    on_cpu = own[way] if way in own else gradients(way)
    return by_platform(on_cpu, gradients(dilated_conv2d))(*residuals, g)


upsampled_conv2d.defvjp(_forward, _backward)


def _on_cpu(x: jax.Array, kernel: jax.Array) -> ConvFn:
    n, h, w, _ = x.shape
    if native.usable(x):
        return _compiled
    if isinstance(n, int) and n * h * w < FOLDING_MIN_PIXELS:  # an exported function may leave n open
        return lambda x, kernel: conv2d(upsample(x), kernel)
    # Differences in half precision would lose what neighbours have in common.
    return (
        differences_conv2d if kernel.shape[-1] >= DIFFERENCES_MIN_OUTPUTS and x.dtype == jnp.float32 else folded_conv2d
    )


def _compiled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return native.convolution(x, kernel, (2 * x.shape[1], 2 * x.shape[2]), 1, upsample=True)


def _fold(kernel: jax.Array, axis: int) -> jax.Array:
    """3 taps along an axis to (2 parities x 2 source pixels, ...) in front: even rows see pixels i
    - 1, i; odd rows i, i + 1.
    """
    first, middle, last = _taps(kernel, axis)
    return jnp.stack([jnp.stack([first, middle + last]), jnp.stack([first + middle, last])])


def _taps(kernel: jax.Array, axis: int) -> Sequence[jax.Array]:
    return [lax.index_in_dim(kernel, tap, axis, keepdims=False) for tap in range(3)]


def folded_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`upsampled_conv2d` for a CPU: depending on the parity of its position, a pixel's 9 taps fall
    on 2 x 2 source pixels in 4 ways.

    All four are one 2x2 conv with 4 O outputs at (H + 1) x (W + 1) positions; each
    uses its own H x W of them.
    """
    n, h, w, _ = x.shape
    folded = _fold(_fold(kernel, 1), 2)  # (row parity, row, column parity, column, I, O)
    folded = folded.transpose(1, 3, 4, 0, 2, 5)
    outputs = kernel.shape[-1]
    y = conv2d(
        jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), folded.reshape(2, 2, x.shape[-1], 4 * outputs), "VALID"
    ).reshape(n, h + 1, w + 1, 2, 2, outputs)
    return _interleaved([[y[:, a : a + h, b : b + w, a, b] for b in (0, 1)] for a in (0, 1)])


def differences_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`upsampled_conv2d` for a CPU and wide kernels: 9 products per source pixel; the rest is sums.

    Along one axis, with taps a, b, c and d[i] = x[i] - x[i-1], zero outside: the even result
    is a x[i-1] + (b + c) x[i] = (a + b + c) x[i] - a d[i], the odd one (a + b) x[i] + c
    x[i+1] = (a + b + c) x[i] + c d[i+1]. So x is convolved with one kernel and d with two;
    along both axes these are 3 x 3.
    """
    h, w, outputs = *x.shape[1:3], kernel.shape[-1]
    (whole, *all_rows), *ends = (_whole_and_ends(rows) for rows in _whole_and_ends(kernel))
    down, across = lax.optimization_barrier((_differences(x, 1), _differences(x, 2)))
    both = lax.optimization_barrier(_differences(down, 2))
    still = _product(x, [whole])
    across = _product(across, all_rows)
    down = _product(down, [row[0] for row in ends])
    both = _product(both, [kernel for row in ends for kernel in row[1:]])
    still, across, down, both = lax.optimization_barrier((still, across, down, both))

    def at(a: int, b: int) -> jax.Array:
        first = outputs * b, outputs * a, outputs * (2 * a + b)
        return (
            still
            + across[:, :, b : b + w, first[0] : first[0] + outputs]
            + down[:, a : a + h, :, first[1] : first[1] + outputs]
            + both[:, a : a + h, b : b + w, first[2] : first[2] + outputs]
        )

    return _interleaved([[at(a, b) for b in (0, 1)] for a in (0, 1)])


def _whole_and_ends(kernel: jax.Array) -> Sequence[jax.Array]:
    """The combinations a + b + c, -a and c along the first axis."""
    first, middle, last = _taps(kernel, 0)
    return [first + middle + last, -first, last]


def _differences(x: jax.Array, axis: int) -> jax.Array:
    """x[i] - x[i-1] along an axis of n, for i from 0 to n, with zeros outside."""
    before, after = ([(0, 0)] * 4 for _ in range(2))
    before[axis], after[axis] = (1, 0), (0, 1)
    return jnp.pad(x, after) - jnp.pad(x, before)


def _product(x: jax.Array, kernels: Sequence[jax.Array]) -> jax.Array:
    """1x1 convs; their outputs are concatenated."""
    return jnp.einsum("nhwi,io->nhwo", x, jnp.concatenate(kernels, -1))


def _interleaved(parts: Sequence[Sequence[jax.Array]]) -> jax.Array:
    """[row parity][column parity] of (N, H, W, C) to (N, 2H, 2W, C)."""
    n, h, w, c = parts[0][0].shape
    return jnp.stack([jnp.stack(row, 3) for row in parts], 2).reshape(n, 2 * h, 2 * w, c)


def dilated_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`upsampled_conv2d` for accelerators: the small image with zeros between its pixels, and
    the kernel spread to 4x4.

    Images are not split by parity: on a TPU that would fill tiles mostly with
    padding (docs/performance.md).
    """
    edge = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    spread = edge[:-1, :-1] + edge[1:, :-1] + edge[:-1, 1:] + edge[1:, 1:]
    return lax.conv_general_dilated(x, spread, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=LAYOUT)
