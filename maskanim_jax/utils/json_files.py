"""How is untrusted JSON read? Like `json.loads`, but every defect raises ValueError."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskanim_jax.errors import check_size

MAX_BYTES = 64 << 20
_LONGEST_NUMBER = 18  # digits of an integer; longer ones exceed any file offset


def loads(text: str | bytes, constant: Callable[[str], Any] = float) -> Any:
    """Parses JSON. Raises ValueError for invalid, too deeply nested text and for overlong integers.

    `constant` is called with "NaN", "Infinity" or "-Infinity", which Python's parser accepts.
    """
    try:
        return json.loads(text, parse_int=_whole, parse_constant=constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read(path: Path, max_bytes: int = MAX_BYTES) -> Any:
    """`loads` of a UTF-8 file. Raises OSError, ValueError, and UserError for a device or a larger
    file.
    """
    check_size(path, max_bytes)
    return loads(path.read_text(encoding="utf-8"))


def refuse_constant(word: str) -> None:
    """For `constant`: raises ValueError."""
    raise ValueError(f"it contains {word}, which is not valid JSON")


def _whole(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER + 1:
        raise ValueError(f"it has a number of {len(digits)} digits")
    return int(digits)
