"""How long did the first step take to compile, and was it in the compilation cache?"""

from __future__ import annotations

import functools
import time
from collections import Counter

import jax

from maskanim_jax.utils.memory import trim_host_memory

HIT = "/jax/compilation_cache/cache_hits"


@functools.cache
def _events() -> Counter[str]:
    """Counts JAX's monitoring events from the first call on."""
    counted: Counter[str] = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counted.update([event]))
    return counted


class CompileTimer:
    """Times the first step, which compiles: a context manager around the call and
    the wait for its results.
    """

    def __init__(self, start_time: float) -> None:
        self._began = start_time  # time.perf_counter() at the start of training

    def __enter__(self) -> CompileTimer:
        self._hits, self._since = _events()[HIT], time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        now = time.perf_counter()
        trim_host_memory()
        self.seconds, self.after = now - self._since, now - self._began
        cached = (
            bool(jax.config.values["jax_compilation_cache_dir"]) and jax.config.values["jax_enable_compilation_cache"]
        )
        self.cache = "off" if not cached else "warm" if _events()[HIT] > self._hits else "cold"

    def message(self) -> str:
        """A line for the log: seconds since training started, and seconds of the first
        step including compilation.
        """
        return f"first step after {self.after:.1f} s (compile cache {self.cache}, compiled and done in {self.seconds:.1f} s)"
