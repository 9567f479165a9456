"""Which XLA flag does the installed jaxlib need to compute correctly?

On a CPU, jaxlib 0.10.2 gives wrong numbers from element 32768 on where a sum is fused with what
follows it (https://github.com/jax-ml/jax/issues/39103). FOMM's random warp was wrong for half of a
batch of 8. Older and newer releases are right.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import metadata

WRONG = "0.10.2"
_FLAG = "xla_cpu_experimental_ynn_fusion_type"


def avoid_wrong_sums() -> None:
    """Disables that fusion in this process and its children.

    JAX reads the flags once, when it creates its devices; if it has done so on a CPU, a warning
    says what to do. Where XLA_FLAGS names the flag, it stays as it is.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG in flags or _jaxlib() != WRONG:
        return
    os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}=-reduce".strip()
    if _runs_on_cpu():
        warnings.warn(
            f"jaxlib {WRONG} computes some sums wrongly on a CPU, and JAX was started before maskanim_jax could avoid it: "
            "import maskanim_jax first, or install another jaxlib",
            stacklevel=3,
        )


def _runs_on_cpu() -> bool:
    """Whether JAX has created its devices in this process, and the default is a CPU."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", lambda: False)
    return bool(started()) and sys.modules["jax"].default_backend() == "cpu"


def _jaxlib() -> str:
    """The version of jaxlib; empty if it is not installed."""
    if loaded := sys.modules.get("jaxlib.version"):
        return str(loaded.__version__)
    try:
        return metadata.version("jaxlib")
    except metadata.PackageNotFoundError:
        return ""
