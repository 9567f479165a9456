"""How does a command print when its terminal is gone, or when a name is no text?

A job that is finished must not end with an error because nobody reads its progress.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any


def make_tolerant() -> None:
    """Prepares stdout and stderr of this process; called once, before a command does anything.

    Closed descriptors 0 to 2 are opened on the null device: the next file that is opened would get their number, and messages of C
    libraries would be written into it. Names that are not UTF-8 are printed with escapes. What stderr does not take is dropped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w", encoding="utf-8", closefd=False))  # noqa: SIM115 (it stays open)
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr = _Tolerant(sys.stderr)  # type: ignore[assignment]


class _Tolerant:
    """A stream whose reader may go away: from then on nothing is written to it."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._drop()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """Lets the descriptor, which C libraries share, end at the null device; what is still buffered goes there."""
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
