"""How are results stored? In a JSON file that is always complete, and as Markdown tables."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Cell = Callable[[Row], str]


class Report:
    """The results, written to `path` as JSON and beside it as tables in .md; both are
    rewritten after each row.
    """

    def __init__(self, path: Path, settings: Row) -> None:
        self.path = path
        self.found: Row = {"settings": settings, "about": {}, "parts": {}, "rows": {}}
        self.write()

    def about(self, facts: Row) -> None:
        """Stores the description of the device."""
        self.found["about"] |= facts
        self.write()

    def row(self, part: str, row: Row) -> None:
        """Adds a result of a part."""
        self.found["rows"].setdefault(part, []).append(row)
        self.write()

    def ended(self, part: str, how: str, seconds: float = 0.0) -> None:
        """Stores how a part ended: "finished", or a sentence."""
        self.found["parts"][part] = {"how": how, "seconds": round(seconds, 1)}
        self.write()

    @property
    def failed(self) -> list[str]:
        """The parts whose checks did not pass."""
        return [part for part, rows in self.found["rows"].items() if any(row.get("passed") is False for row in rows)]

    def write(self) -> None:
        """Writes both files atomically."""
        for path, text in (
            (self.path, json.dumps(self.found, indent=2) + "\n"),
            (self.path.with_suffix(".md"), self.tables()),
        ):
            temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
            temporary.write_text(text)
            os.replace(temporary, path)

    def tables(self) -> str:
        """All results so far, as Markdown."""
        lines = ["# " + (self.found["about"].get("device") or "A device that did not answer"), ""]
        lines += [f"- {name}: {_plain(value)}" for name, value in self.found["about"].items() if value is not None]
        for kind, columns in COLUMNS.items():
            rows = [row for part, rows in self.found["rows"].items() if part.split("-")[0] == kind for row in rows]
            if rows:
                shown = {name: cell for name, cell in columns.items() if any(cell(row) for row in rows)}
                lines += ["", f"## {kind}", "", "| " + " | ".join(shown) + " |", "| --- " * len(shown) + "|"]
                lines += ["| " + " | ".join(cell(row) for cell in shown.values()) + " |" for row in rows]
        lines += ["", "## parts", ""]
        lines += [f"- {part}: {how['how']}, {how['seconds']:.0f} s" for part, how in self.found["parts"].items()]
        return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(each)}" for name, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _number(name: str, scale: float = 1.0, form: str = "{:.4g}") -> Cell:
    """A number as a table cell; empty if there is none."""
    return lambda row: "" if row.get(name) is None else form.format(scale * row[name])


def _text(name: str) -> Cell:
    return lambda row: "" if row.get(name) is None else str(row[name])


def _worst(name: str) -> Cell:
    """The largest of a dict's values, with its name."""

    def cell(row: Row) -> str:
        values = row.get(name)
        worst = max(values, key=values.get) if values else ""
        return f"{values[worst]:.1e} ({worst})" if values else ""

    return cell


def _passed(row: Row) -> str:
    return {True: "yes", False: "NO"}.get(row.get("passed"), "")  # type: ignore[call-overload]


_WHAT: dict[str, Cell] = {
    "system": _text("system"),
    "side": _text("by"),
    "precision": _text("precision"),
    "frames": _text("size"),
    "batch": _text("batch"),
}
COLUMNS: dict[str, dict[str, Cell]] = {
    "parity": {
        "system": _text("system"),
        "precision": _text("precision"),
        "largest difference": _worst("largest"),
        "mean": _worst("mean"),
        "losses, shares": _worst("losses"),
        "gradient norms, shares": _worst("norms"),
        "within bounds": _passed,
    },
    "training": _WHAT
    | {
        "steps/s": _number("steps_per_s"),
        "frames/s": _number("frames_per_s"),
        "peak memory, MiB": _number("peak_memory_mib", form="{:.0f}"),
        "by the compiler": _number("compiled_memory_mib", form="{:.0f}"),
        "TFLOP a step": _number("tflop_per_step"),
        "share of peak": _number("share_of_peak", 100, "{:.1f} %"),
        "compiling, s": _number("compile_s", form="{:.0f}"),
        "": _text("note"),
    },
    "animation": _WHAT
    | {
        "frames/s": _number("frames_per_s"),
        "frames/s, fetched": _number("frames_per_s_fetched"),
        "ms a batch": _number("ms_per_batch"),
        "peak memory, MiB": _number("peak_memory_mib", form="{:.0f}"),
        "share of peak": _number("share_of_peak", 100, "{:.1f} %"),
        "compiling, s": _number("compile_s", form="{:.0f}"),
        "": _text("note"),
    },
    "pytorch": _WHAT
    | {
        "steps/s": _number("steps_per_s"),
        "frames/s, animation": _number("frames_per_s"),
        "peak memory, MiB": _number("peak_memory_mib", form="{:.0f}"),
        "": _text("note"),
    },
    "learning": _WHAT
    | {
        "steps": _text("steps"),
        "steps/s": _number("steps_per_s"),
        "loss, first tenth": _number("loss_first"),
        "last tenth": _number("loss_last"),
        "falls": _passed,
    },
}
"""The table columns of each kind of part (its name before the "-"); columns
without values are omitted.
"""
