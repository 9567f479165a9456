"""What is set once in a process before JAX is used: the compilation cache, CPU devices, the other processes."""

from __future__ import annotations

import contextlib
import os

import jax
from ml_collections import ConfigDict

from maskanim_jax.errors import UserError
from maskanim_jax.weights import default_cache

OTHERS = "MASKANIM_DISTRIBUTED"
"""Environment variable: "1" where JAX finds the other processes by itself (Slurm, TPU pods, Open MPI), else ADDRESS:PORT,COUNT,INDEX."""


def prepare(config: ConfigDict) -> None:
    """Turns on the persistent compilation cache, makes `config.cpu_devices`, joins the other processes when MASKANIM_DISTRIBUTED is set.

    Without a GPU or TPU a mesh of CPU devices is worth having: XLA runs a narrow conv on one core, two devices run two of them.
    Raises UserError when MASKANIM_DISTRIBUTED cannot be read.
    """
    if others := os.environ.get(OTHERS):
        _join(others)
    if config.cpu_devices > 1 and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX is in use already: its devices stay what they are
            jax.config.update("jax_num_cpu_devices", config.cpu_devices)
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(default_cache() / "xla")
    )
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update(
            "jax_persistent_cache_min_compile_time_secs", 0.3
        )  # the many small programs of a start count too


def _join(others: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # between processes without accelerators
    if "," not in others:
        jax.distributed.initialize()
        return
    try:
        address, count, index = others.split(",")
        numbers = int(count), int(index)
        if not 0 <= numbers[1] < numbers[0] or ":" not in address:
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"{OTHERS}={others} cannot be read: give ADDRESS:PORT,COUNT,INDEX, such as localhost:1234,2,0, or 1"
        ) from error
    jax.distributed.initialize(address, *numbers)
