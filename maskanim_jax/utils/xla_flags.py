"""Which XLA flag does the installed jaxlib need to compute correctly?

On a CPU, jaxlib 0.10.2 gives wrong numbers from element 32768 on where a sum is fused with what
follows it (https://github.com/jax-ml/jax/issues/39103). FOMM's random warp was wrong for half of a
batch of 8. Older and newer releases are right.
"""

from __future__ import annotations

import os
import sys
from importlib import metadata

WRONG = "0.10.2"
_FLAG = "xla_cpu_experimental_ynn_fusion_type"


def avoid_wrong_sums() -> None:
    """Disables that fusion in this process and its children.

    XLA reads its flags once, when it compiles the first program. Where XLA_FLAGS names the flag, it
    stays as it is.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if _FLAG not in flags and _jaxlib() == WRONG:
        os.environ["XLA_FLAGS"] = f"{flags} --{_FLAG}=-reduce".strip()


def _jaxlib() -> str:
    """The version of jaxlib; empty if it is not installed."""
    if loaded := sys.modules.get("jaxlib.version"):
        return str(loaded.__version__)
    try:
        return metadata.version("jaxlib")
    except metadata.PackageNotFoundError:
        return ""
