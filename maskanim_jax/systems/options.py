"""Which animation options do the systems share, and how are all of them listed in `--help`?"""

from __future__ import annotations

import importlib

from maskanim_jax.errors import UserError
from maskanim_jax.systems import SYSTEMS

FLAG = "average poses over time to reduce flicker, from 0 (default, off) to 0.95, such as 0.5; fast motion lags behind"
"""Help text of the option, for every system that has it."""


def parse_smooth(text: str) -> float:
    """Parses the option's value. Raises UserError for invalid values."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 0.95:
        raise UserError(f"--smooth={text} must be a number from 0 (off) to 0.95, such as 0.5")
    return value


def system_flags() -> dict[str, str]:
    """The options of all systems by name, with their help texts."""
    found: dict[str, list[str]] = {}
    for system in SYSTEMS:
        for name, help_text in importlib.import_module(f"maskanim_jax.systems.{system}.options").FLAGS.items():
            found.setdefault(name, []).append(f"({system}) {help_text}")
    return {name: "; ".join(sentences) for name, sentences in found.items()}
