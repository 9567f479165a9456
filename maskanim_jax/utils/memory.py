"""How is the host memory of a process tuned? Huge pages for the allocator, and trimming after
compilation.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def reexec_with_huge_pages() -> None:
    """Re-executes the process with `GLIBC_TUNABLES` for huge pages, unless it is set; Linux only.

    glibc reads the variable only at startup. Each step's temporaries are allocated from the system
    and freed again; with pages of 4 kB that took a sixth of a training step on a CPU
    (docs/performance.md). A C library without this tunable ignores it.
    """
    if sys.platform == "linux" and TUNABLES not in os.environ:
        os.environ[TUNABLES] = HUGE_PAGES
        with contextlib.suppress(OSError):
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # same process id, signals and exit status


def trim_host_memory() -> None:
    """Returns freed memory to the system: after compilation glibc keeps hundreds of megabytes.
    No-op without glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
