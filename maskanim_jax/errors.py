"""What does a user see when the input is invalid? One sentence and a non-zero exit status."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESTART = 75
"""Exit status: the run is intact and the same command resumes it (EX_TEMPFAIL of sysexits.h)."""
_LONGEST = 8000  # characters of a message


class UserError(Exception):
    """Invalid input or settings. The message is one sentence: the path, the problem, what to do.

    Names and reasons in it may come from untrusted files, so line breaks and terminal codes are
    escaped.
    """

    status = 2
    """Exit status of a command that ends with it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """`text` on one line, truncated, with control and bidirectional characters escaped."""
    shown = "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else repr(c)[1:-1] for c in text[:_LONGEST])
    return shown if len(text) <= _LONGEST else f"{shown} ..."


def check_regular(path: str | Path) -> None:
    """Raises UserError for a named pipe, socket or device, which could block or never end.

    Raises OSError if the path does not exist. Folders pass: each reader reports them itself.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "named pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise UserError(f"{path} is a {kind}, not a file; save its content to a file and give that")


def check_size(path: str | Path, max_bytes: int) -> None:
    """Like `check_regular`, but also raises UserError for a file of more than `max_bytes` bytes."""
    check_regular(path)
    if (size := os.stat(path).st_size) > max_bytes:
        raise UserError(f"{path} has {size:,} bytes, more than the {max_bytes:,} allowed here; give another file")


def check_at_least(name: str, value: float | None, least: float = 1) -> None:
    """Raises UserError when a setting is below `least`; None passes.

    `name` is the setting as the user wrote it (--batch, config.data.num_threads).
    """
    if value is not None and value < least:
        raise UserError(f"{name}={value} must be at least {least}")


EXIT_HOOKS: list[Callable[[int, str], object]] = []
"""Called with exit status and message (or traceback) when a command fails.

In a multi-process run the hook notifies the other processes and exits.
"""


def run_main(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits: 0 on success, 2 on a `UserError` (75 if the same command may succeed
    later), 130 on Ctrl-C.

    Other exceptions are bugs and keep their traceback (exit status 1).
    """
    make_tolerant()
    try:
        status, message = main() or 0, ""
    except UserError as error:
        status, message = error.status, f"error: {error}"
    except KeyboardInterrupt:
        status, message = 130, "stopped by the keyboard"
    except SystemExit as error:
        status, message = error.code if isinstance(error.code, int) else int(error.code is not None), ""
        if not (status and EXIT_HOOKS):
            raise
    except Exception:
        if not EXIT_HOOKS:
            raise
        status, message = 1, traceback.format_exc()
    for hook in EXIT_HOOKS if status else ():
        hook(status, message)
    if message:
        print(message, file=sys.stderr)
    sys.exit(status)


def make_tolerant() -> None:
    """Makes stdout and stderr robust; called once, before a command does anything.

    Closed descriptors 0 to 2 are opened on the null device; otherwise the next opened file would
    get their number, and messages of C libraries would be written into it. Names that are not UTF-8
    are printed with escapes. Output is dropped when stderr's reader has gone.
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
        sys.stderr = _Tolerant(sys.stderr)


class _Tolerant:
    """A stream whose reader may disappear; from then on nothing is written to it."""

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
        """Lets the descriptor, which C libraries share, end at the null device; what is still
        buffered goes there.
        """
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
