"""How is progress shown? As a bar in a terminal, as a line every few seconds in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

SECONDS = 5.0
"""Time between two lines where no terminal redraws them in place."""


class ProgressBar(tqdm):
    """tqdm, whose lines do not fill a log file."""

    def __init__(self, *args: Any, **options: Any) -> None:
        if not (options.get("file") or sys.stderr).isatty():
            options.setdefault("mininterval", SECONDS)
        super().__init__(*args, **options)
