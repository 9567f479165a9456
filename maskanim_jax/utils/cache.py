"""Where is the cache for downloaded and compiled files?"""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """`$MASKANIM_CACHE`, else `maskanim_jax` in `$XDG_CACHE_HOME`, else in `~/.cache`."""
    if own := os.environ.get("MASKANIM_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "maskanim_jax"
