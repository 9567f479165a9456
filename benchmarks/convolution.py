"""How much faster are this project's convolutions than XLA's?

`python -m benchmarks.convolution` measures both alternately in one run and prints the ratios. It
runs forward and backward passes of the most expensive layers at 256 x 256 and of small ones, on
JAX's default platform. On a CPU with a compiler, the native convolutions are compared with XLA's
and with the ones that a CPU without a compiler uses.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from maskanim_jax.nn.kernels.convolution import conv2d
from maskanim_jax.nn.kernels.native import build
from maskanim_jax.nn.kernels.upsampling import upsample, upsampled_conv2d

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
"""Batch, side before upsampling, input channels, output channels."""


def plain(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def both_ways(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> Callable[[], Any]:
    """The function and both of its gradients, jitted."""
    g = jax.random.normal(jax.random.key(2), jax.eval_shape(function, x, kernel).shape)
    run = jax.jit(lambda x, kernel, g: jax.vjp(function, x, kernel)[1](g)).lower(x, kernel, g).compile()
    return lambda: jax.block_until_ready(run(x, kernel, g))


def without_compiler(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> Callable[[], Any]:
    """`both_ways`, as on a machine without a compiler."""
    with build.disable_native():
        return both_ways(lambda x, kernel: function(x, kernel), x, kernel)


def compared(ours: Callable[..., jax.Array], theirs: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> str:
    """The median seconds of this project's and XLA's convolution, and the median
    ratios of neighbouring runs.
    """
    ways = {"ours": both_ways(ours, x, kernel), "plain": both_ways(theirs, x, kernel)}
    if build.prefix():
        ways["without a compiler"] = without_compiler(ours, x, kernel)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, run in ways.items():
            began = time.perf_counter()
            run()
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - began)
    told = [f"{statistics.median(times['ours']):.4f} s"]
    for name in list(ways)[1:]:
        share = statistics.median(a / b for a, b in zip(times["ours"], times[name], strict=True))
        told.append(f"{name} {statistics.median(times[name]):.4f} s, ratio {share:.2f}")
    return "; ".join(told)


def main() -> None:
    print(
        f"{jax.devices()[0].platform}, jax {jax.__version__}, convolutions: {build.describe_backend()}; forwards and both gradients; "
        "a ratio below 1 means that this project's is faster"
    )
    for n, side, inputs, outputs, size in CONVS:
        x = jax.random.normal(jax.random.key(0), (n, side, side, inputs))
        kernel = jax.random.normal(jax.random.key(1), (size, size, inputs, outputs))
        told = compared(conv2d, plain, x, kernel)
        print(f"{size}x{size} conv, batch {n}, {side}x{side}, {inputs} to {outputs}: {told}", flush=True)
    for n, side, inputs, outputs in UPSAMPLED:
        x = jax.random.normal(jax.random.key(0), (n, side, side, inputs))
        kernel = jax.random.normal(jax.random.key(1), (3, 3, inputs, outputs))
        told = compared(upsampled_conv2d, lambda x, k: plain(upsample(x), jnp.asarray(k)), x, kernel)
        print(f"upsampled 3x3 conv, batch {n}, from {side}x{side}, {inputs} to {outputs}: {told}", flush=True)


if __name__ == "__main__":
    main()
