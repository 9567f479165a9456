"""How much faster are our convolutions than the plain ones? `python -m benchmarks.convolution` prints ratios, taken alternately in one run.

Forwards and backwards of the layers that cost most at 256 x 256 and of small ones, on the platform that JAX finds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from maskanim_jax.nn.convolution import conv2d
from maskanim_jax.nn.upsampling import upsample, upsampled_conv2d

ROUNDS = 7
CONVS = (
    (2, 256, 8, 128, 3),
    (2, 128, 128, 256, 3),
    (2, 64, 256, 256, 3),
    (2, 256, 72, 3, 7),
    (4, 64, 16, 32, 3),
    (4, 64, 20, 3, 7),
)
UPSAMPLED = ((2, 128, 256, 64), (2, 64, 512, 128), (2, 32, 1024, 256), (4, 32, 32, 16))
"""Batch, side before upsampling, inputs, outputs."""


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def both_ways(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> Callable[[], Any]:
    """The function and its two gradients, jitted."""
    g = jax.random.normal(jax.random.key(2), jax.eval_shape(function, x, kernel).shape)
    run = jax.jit(lambda x, kernel, g: jax.vjp(function, x, kernel)[1](g))
    return lambda: jax.block_until_ready(run(x, kernel, g))


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, float]:
    """Median seconds of both, and the median of the ratios of neighbouring runs."""
    ours(), theirs()
    times: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        pair = []
        for run in (ours, theirs):
            began = time.perf_counter()
            run()
            pair.append(time.perf_counter() - began)
        times.append((pair[0], pair[1]))
    return *(statistics.median(column) for column in zip(*times, strict=True)), statistics.median(
        a / b for a, b in times
    )  # type: ignore[return-value]


def main() -> None:
    print(
        f"{jax.devices()[0].platform}, jax {jax.__version__}; forwards and both gradients; ratio below 1: ours is faster"
    )
    for n, side, inputs, outputs, size in CONVS:
        x = jax.random.normal(jax.random.key(0), (n, side, side, inputs))
        kernel = jax.random.normal(jax.random.key(1), (size, size, inputs, outputs))
        ours, theirs, share = ratio(both_ways(conv2d, x, kernel), both_ways(plain, x, kernel))
        print(
            f"{size}x{size} conv, batch {n}, {side}x{side}, {inputs} to {outputs}: {ours:.4f} s, plain {theirs:.4f} s, ratio {share:.2f}"
        )
    for n, side, inputs, outputs in UPSAMPLED:
        x = jax.random.normal(jax.random.key(0), (n, side, side, inputs))
        kernel = jax.random.normal(jax.random.key(1), (3, 3, inputs, outputs))
        ours, theirs, share = ratio(
            both_ways(upsampled_conv2d, x, kernel),
            both_ways(lambda x, k: plain(upsample(x), jnp.asarray(k)), x, kernel),
        )
        print(
            f"upsampled 3x3 conv, batch {n}, from {side}x{side}, {inputs} to {outputs}: {ours:.4f} s, plain {theirs:.4f} s, ratio {share:.2f}"
        )


if __name__ == "__main__":
    main()
