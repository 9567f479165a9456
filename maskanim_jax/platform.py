"""What is set once in a process before JAX is used: the compilation cache, CPU devices, the other hosts."""

from __future__ import annotations

import os

import jax
from ml_collections import ConfigDict

from maskanim_jax.weights import default_cache


def prepare(config: ConfigDict) -> None:
    """Turns on the persistent compilation cache, makes `config.cpu_devices`, joins the other hosts when MASKANIM_DISTRIBUTED is set.

    Without a GPU or TPU a mesh of CPU devices is worth having: XLA runs a narrow conv on one core, two devices run two of them.
    """
    if os.environ.get("MASKANIM_DISTRIBUTED"):
        jax.distributed.initialize()
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(default_cache() / "xla")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
