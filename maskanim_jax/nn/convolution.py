"""How is a convolution computed? The same numbers as the plain one, up to rounding, with fewer operations and no slow path.

Nearest-neighbour upsampling followed by a 3x3 conv is one conv of the small image: 16 multiplications instead of 36, in the form that
the platform is good at. And on a CPU the gradient with respect to the kernel is added up over blocks of rows: XLA treats it as a conv
whose kernel is the whole picture, which leaves the cache (benchmarks/convolution.py prints the ratios). Other platforms get the plain
gradient. A 7x7 conv with few outputs, which leaves most of a CPU's vector empty, is a 1x7 conv with 7 times as many there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

Way = Callable[[jax.Array, jax.Array], jax.Array]
LAYOUT = ("NHWC", "HWIO", "NHWC")
BLOCK_BYTES = 2 << 20
"""What a block of rows takes of the two pictures, so that it stays in a core's cache."""
BLOCKED_PIXELS = 128 * 128
"""Smaller pictures are one block: for them the plain gradient was as fast or faster."""
FOLDED_PIXELS = 512
"""Batches of fewer source pixels are upsampled and convolved: folding a wide kernel would cost more than it saves."""
THIN, TALL = 4, 5
"""Kernels with at most so many outputs and at least so many rows are taken apart by rows on a CPU."""


def _plain(x: jax.Array, kernel: jax.Array, padding: str) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=LAYOUT)


def by_platform(cpu: Callable[..., Any], others: Callable[..., Any]) -> Callable[..., Any]:
    """The function that is the first on a CPU and the second elsewhere, decided when it is lowered."""
    return lambda *inputs: lax.platform_dependent(*inputs, cpu=cpu, default=others)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv2d(x: jax.Array, kernel: jax.Array, padding: str = "SAME") -> jax.Array:
    """(N, H, W, I) by (K, K, I, O), stride 1: (N, H, W, O), or (N, H - K + 1, W - K + 1, O) with padding "VALID"."""
    plain = functools.partial(_plain, padding=padding)
    return (
        by_platform(functools.partial(thin_conv2d, padding=padding), plain)(x, kernel)
        if _thin(kernel)
        else plain(x, kernel)
    )


def _forward(x: jax.Array, kernel: jax.Array, padding: str) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return conv2d(x, kernel, padding), (x, kernel)


def _backward(padding: str, kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def plain(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _to_x(x, kernel, g, padding), _kernel_gradient(x, g, size=kernel.shape[0], padding=padding)

    def on_cpu(x: jax.Array, kernel: jax.Array, g: jax.Array) -> tuple[jax.Array, jax.Array]:
        if _thin(kernel):
            return jax.vjp(functools.partial(thin_conv2d, padding=padding), x, kernel)[1](g)
        return _to_x(x, kernel, g, padding), _by_rows(x, g, size=kernel.shape[0], padding=padding)

    return by_platform(on_cpu, plain)(*kept, g)


conv2d.defvjp(_forward, _backward)


def _thin(kernel: jax.Array) -> bool:
    return kernel.shape[-1] <= THIN and kernel.shape[0] >= TALL


def thin_conv2d(x: jax.Array, kernel: jax.Array, padding: str = "SAME") -> jax.Array:
    """`conv2d` for a CPU and few outputs: each row of the kernel gives outputs of its own, which are shifted and added."""
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
    """The gradient with respect to the kernel (K, K, I, O), as XLA has it."""
    like = jax.ShapeDtypeStruct((size, size, x.shape[-1], g.shape[-1]), x.dtype)
    return jax.linear_transpose(lambda kernel: _plain(x, kernel, padding), like)(g)[0]


def _by_rows(x: jax.Array, g: jax.Array, *, size: int, padding: str) -> jax.Array:
    """The same as the sum over blocks of rows, on each device by itself: one sum over the devices, not one for every block."""
    x, g = lax.optimization_barrier((x, g))  # or what made them would be computed again for every tap
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("data", 1) == 1 or mesh.are_all_axes_manual:
        return _blocks(x, g, size, padding)
    batch, whole = PartitionSpec("data"), PartitionSpec()
    return jax.shard_map(
        lambda x, g: lax.psum(_blocks(x, g, size, padding), "data"), in_specs=(batch, batch), out_specs=whole
    )(x, g)


def _blocks(x: jax.Array, g: jax.Array, size: int, padding: str) -> jax.Array:
    """The kernel's gradient, block after block."""
    before, after = ((size - 1) // 2, size // 2) if padding == "SAME" else (0, 0)
    x = jnp.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    of_a_row = g.shape[0] * g.shape[2] * (x.shape[-1] + g.shape[-1]) * g.dtype.itemsize
    rows = max(1, BLOCK_BYTES // of_a_row) if g.shape[1] * g.shape[2] >= BLOCKED_PIXELS else g.shape[1]
    parts = [
        _kernel_gradient(x[:, start : start + rows + size - 1], g[:, start : start + rows], size=size, padding="VALID")
        for start in range(0, g.shape[1], rows)
    ]
    return sum(parts[1:], parts[0])


def upsample(x: jax.Array) -> jax.Array:
    """Nearest neighbour, (N, H, W, C) to (N, 2H, 2W, C)."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)


def _fold(kernel: jax.Array, axis: int) -> jax.Array:
    """3 taps along an axis to (2 parities x 2 source pixels, ...) in front: even rows see pixels i - 1, i; odd rows i, i + 1."""
    first, middle, last = (lax.index_in_dim(kernel, tap, axis, keepdims=False) for tap in range(3))
    return jnp.stack([jnp.stack([first, middle + last]), jnp.stack([first + middle, last])])


@jax.custom_vjp
def upsampled_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 conv, zero padding, of `x` upsampled 2x by nearest neighbour: (N, H, W, I) by (3, 3, I, O) to (N, 2H, 2W, O).

    A pixel of the upsampled picture sees 2 x 2 different source pixels, so 16 of its 36 products are different ones.
    """
    return by_platform(folded_conv2d, dilated_conv2d)(x, kernel)


def _upsampled_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return upsampled_conv2d(x, kernel), (x, kernel)


def _upsampled_backward(kept: tuple[jax.Array, jax.Array], g: jax.Array) -> tuple[jax.Array, jax.Array]:
    def gradients(way: Way) -> Callable[..., tuple[jax.Array, jax.Array]]:
        return lambda x, kernel, g: jax.vjp(way, x, kernel)[1](g)

    return by_platform(gradients(folded_conv2d), gradients(dilated_conv2d))(*kept, g)


upsampled_conv2d.defvjp(_upsampled_forward, _upsampled_backward)


def folded_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`upsampled_conv2d` for a CPU: by the parity of its place a pixel's 9 taps fall on the 2 x 2 source pixels in 4 ways.

    All four are one 2x2 conv with 4 O outputs over H + 1 x W + 1 places, from which each takes its own H x W.
    """
    n, h, w, _ = x.shape
    if isinstance(n, int) and n * h * w < FOLDED_PIXELS:  # an exported function may leave n open
        return conv2d(upsample(x), kernel)
    folded = _fold(_fold(kernel, 1), 2)  # (row parity, row, column parity, column, I, O)
    folded = folded.transpose(1, 3, 4, 0, 2, 5)
    outputs = kernel.shape[-1]
    y = conv2d(
        jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), folded.reshape(2, 2, x.shape[-1], 4 * outputs), "VALID"
    ).reshape(n, h + 1, w + 1, 2, 2, outputs)
    rows = [jnp.stack([y[:, a : a + h, b : b + w, a, b] for b in (0, 1)], 3) for a in (0, 1)]
    return jnp.stack(rows, 2).reshape(n, 2 * h, 2 * w, outputs)


def dilated_conv2d(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`upsampled_conv2d` for accelerators: the small image with zeros between its pixels, and the kernel spread to 4x4.

    No picture is taken apart by parity, which a TPU would do in tiles of mostly nothing (docs/performance.md).
    """
    edge = jnp.pad(kernel, ((1, 1), (1, 1), (0, 0), (0, 0)))
    spread = edge[:-1, :-1] + edge[1:, :-1] + edge[:-1, 1:] + edge[1:, 1:]
    return lax.conv_general_dilated(x, spread, (1, 1), ((2, 2), (2, 2)), lhs_dilation=(2, 2), dimension_numbers=LAYOUT)
