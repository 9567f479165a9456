"""What does a user see when the input is bad? One clear sentence, and a non-zero exit."""

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
"""Exit status: nothing is wrong with the run, the same command goes on (EX_TEMPFAIL of sysexits.h).
"""
_LONGEST = 8000  # characters of a sentence


class UserError(Exception):
    """Bad input or a wrong setting: the message is one sentence with the path and the mend.

    Names and reasons in it may come from strangers' files: line breaks, terminal codes and the like
    are written as escapes.
    """

    status = 2
    """Exit status of a command that ends with it."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """`text` on one line, with what would steer a terminal or reorder letters as escapes; not
    endlessly long.
    """
    shown = "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else repr(c)[1:-1] for c in text[:_LONGEST])
    return shown if len(text) <= _LONGEST else f"{shown} ..."


def check_regular(path: str | Path) -> None:
    """Raises UserError for a named pipe, a socket or a device, which could be read for ever;
    OSError if there is nothing.

    Folders pass: each reader has its own sentence for them.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "named pipe" if stat.S_ISFIFO(mode) else "socket" if stat.S_ISSOCK(mode) else "device"
        raise UserError(f"{path} is a {kind} and no file; save its content to a file and give that")


def check_size(path: str | Path, max_bytes: int) -> None:
    """`check_regular`, and UserError for a file of more than `most` bytes; for what is read as a
    whole.
    """
    check_regular(path)
    if (size := os.stat(path).st_size) > max_bytes:
        raise UserError(
            f"{path} has {size:,} bytes, more than the {max_bytes:,} that such a file may have; give another"
        )


def check_at_least(name: str, value: float | None, least: float = 1) -> None:
    """Raises UserError when a setting is too small; `name` as the user wrote it (--batch,
    config.data.num_threads), None passes.
    """
    if value is not None and value < least:
        raise UserError(f"{name}={value} must be at least {least}")


EXIT_HOOKS: list[Callable[[int, str], object]] = []
"""Called with status and sentence (or traceback) when a command ends with an error; a process of
many tells the others, and ends there.
"""


def run_main(main: Callable[[], int | None]) -> None:
    """Runs `main` and ends the process: 0 on success, 2 on a `UserError` (75 where the same command
    will do later), 130 on Ctrl-C.

    Other exceptions are defects of this project and keep their traceback (exit status 1).
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
    for ending in EXIT_HOOKS if status else ():
        ending(status, message)
    if message:
        print(message, file=sys.stderr)
    sys.exit(status)


def make_tolerant() -> None:
    """Prepares stdout and stderr of this process; called once, before a command does anything.

    Closed descriptors 0 to 2 are opened on the null device: the next file that is opened would get
    their number, and messages of C libraries would be written into it. Names that are not UTF-8 are
    printed with escapes. What stderr does not take is dropped.
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
        """Lets the descriptor, which C libraries share, end at the null device; what is still
        buffered goes there.
        """
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
