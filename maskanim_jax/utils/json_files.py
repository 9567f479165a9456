"""How is JSON read that may come from a stranger? Like `json.loads`, but whatever can't be meant is one kind of error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskanim_jax.errors import check_size

MAX_BYTES = 64 << 20
_LONGEST_NUMBER = 18  # digits of a whole number; longer ones don't fit a float or a file's position


def loads(text: str | bytes, constant: Callable[[str], Any] = float) -> Any:
    """The value of a JSON text. Raises ValueError for what is none, is nested too deeply or has endless whole numbers.

    `constant` is called with NaN, Infinity or -Infinity, which Python's JSON has and others' hasn't.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_constant=constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """`loads` of a file in UTF-8 of at most `most` bytes. Raises OSError, ValueError, and UserError for a device or a larger file."""
    check_size(path, max_bytes)
    return loads(path.read_text(encoding="utf-8"))


def refuse_constant(word: str) -> None:
    """For `constant`: raises ValueError."""
    raise ValueError(f"it says {word}, which is no number of JSON")


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER + 1:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)
