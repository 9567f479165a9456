"""How does a process come by its memory, and what does it keep that nobody uses any more?"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def reexec_with_huge_pages() -> None:
    """For the start of a command on Linux: begins it again with `GLIBC_TUNABLES`, which glibc reads once, unless that is set already.

    Each step's temporaries are asked of the system and given back. In pages of 4 kB that took a sixth of a training step on a CPU
    (docs/performance.md). A C library without this tunable ignores it.
    """
    if sys.platform == "linux" and TUNABLES not in os.environ:
        os.environ[TUNABLES] = HUGE_PAGES
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # the same process: signals and status stay


def trim_host_memory() -> None:
    """After compiling: glibc keeps hundreds of megabytes that the compiler gave back; where there is no glibc nothing happens."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
