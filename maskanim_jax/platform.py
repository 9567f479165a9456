"""What is set once in a process before JAX is used: the compilation cache, and the other processes of a multi-host run."""

from __future__ import annotations

import os

import jax

from maskanim_jax.weights import default_cache


def prepare() -> None:
    """Turns on the persistent compilation cache, and joins the other hosts when MASKANIM_DISTRIBUTED is set."""
    if os.environ.get("MASKANIM_DISTRIBUTED"):
        jax.distributed.initialize()
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(default_cache() / "xla")
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)
