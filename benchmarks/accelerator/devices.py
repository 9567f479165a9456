"""What is this device, what is its peak rate, and how much memory was used?"""

from __future__ import annotations

import importlib.metadata
import resource
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp

PEAKS: dict[str, tuple[float, float]] = {
    # GPUs: dense tensor-core rates, without sparsity. Float32 is TF32 where the device has it, which JAX uses by default.
    "H200": (989, 495),
    "H100 PCIe": (756, 378),
    "H100": (989, 495),
    "A100": (312, 156),
    "L40S": (362, 183),
    "L4": (121, 60),
    "A10G": (70, 35),
    "T4": (65, 8.1),
    "V100": (125, 15.7),
    # TPUs: a JAX device is a core up to v3 and a chip after that. Float32 is multiplied in bfloat16 by default.
    "TPU v2": (22.5, 22.5),
    "TPU v3": (61.5, 61.5),
    "TPU v4": (275, 275),
    "TPU v5 lite": (197, 197),
    "TPU v5e": (197, 197),
    "TPU v5": (459, 459),
    "TPU v5p": (459, 459),
    "TPU v6 lite": (918, 918),
    "TPU v6e": (918, 918),
}
"""Vendors' peak rates in TFLOP/s for bfloat16 and for float32 with JAX's default precision.

T4 and V100 lack bfloat16: their rate is float16's.
"""


def peak_tflops(device_kind: str, precision: str) -> float | None:
    """The device's peak in TFLOP/s at "bfloat16" or "float32"; None for a kind
    that is not in the table.

    The longest name that the kind contains as whole words decides: "NVIDIA H100
    80GB HBM3" is an "H100".
    """
    words = f" {device_kind.replace('-', ' ')} "
    known = [name for name in PEAKS if f" {name} " in words]
    return PEAKS[max(known, key=len)][precision == "float32"] if known else None


def share_of_peak(flops: float | None, seconds: float, precision: str) -> float | None:
    """The share of all devices' peak that `flops` operations in `seconds` reach;
    None if either is unknown.
    """
    peak = peak_tflops(jax.devices()[0].device_kind, precision)
    return None if peak is None or not flops else flops / seconds / (peak * 1e12 * jax.device_count())


def flops_of(lowered: Any) -> float | None:
    """Floating-point operations in XLA's cost analysis of a lowered program, before
    optimisation; None if unknown.

    On a CPU the native convolutions are calls that XLA cannot count.
    """
    if jax.default_backend() == "cpu":
        return None
    try:
        found = lowered.cost_analysis()
        found = found[0] if isinstance(found, list) else found
        return float(found["flops"]) or None
    except Exception:
        return None


def peak_memory_mib() -> float:
    """Peak memory so far in MiB: of the first device, or of this process if the
    device does not report it.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"] / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def compiled_memory_mib(compiled: Any) -> float | None:
    """Arguments, results and temporaries of a compiled program in MiB, from the compiler; None if
    it does not report them.
    """
    try:
        found = compiled.memory_analysis()
        bytes_ = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
        return (bytes_ - found.alias_size_in_bytes) / 2**20
    except Exception:
        return None


def about() -> dict[str, Any]:
    """The devices and the package versions."""
    device = jax.devices()[0]
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    versions = {name: _version(name) for name in ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")}
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "devices": jax.device_count(),
        "memory_mib": None if limit is None else limit / 2**20,
        "peak_tflops": {name: peak_tflops(device.device_kind, name) for name in ("bfloat16", "float32")},
        "python": sys.version.split()[0],
        **versions,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def matmul_tflops(side: int, dtype: Any) -> float:
    """The rate of a product of two square matrices in TFLOP/s: the rate that a
    program can reach in practice.
    """
    a = jnp.ones((side, side), dtype)
    times = 10
    run = jax.jit(lambda a: jax.lax.fori_loop(0, times, lambda _, x: (x @ a) * 1e-4, a))
    jax.block_until_ready(run(a))
    began = time.perf_counter()
    jax.block_until_ready(run(a))
    return times * 2 * side**3 / (time.perf_counter() - began) / 1e12
