"""Which parts do report pages consist of?

SVG curves, embedded images, linked videos, optional JSON.
"""

from __future__ import annotations

import base64
import math
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from maskanim_jax.errors import UserError
from maskanim_jax.utils import json_files
from maskanim_jax.workdir.logs import PICTURES

_TIMELINE = 6  # pictures per name in the time line
_VIDEOS = 24  # per folder
_POINTS = 300  # per curve
_CHART = (300.0, 120.0)  # width and height of a curve's plot, in SVG units
_EMBED = 4 << 20  # bytes; larger pictures are linked
# A scalar belongs to the first group with a word that its name contains; the others are grouped by their prefix.
_GROUPS = {
    "Held-out clips": ("eval", "held_out", "test_", "test/"),
    "Losses": ("loss",),
    "Learning rates": ("learning_rate", "lr"),
    "Speed": ("per_second", "speed", "wait", "seconds", "epoch"),
}


class Curve(NamedTuple):
    """One scalar over the steps, ready to draw: `lines` are SVG point lists, interrupted where
    the value is not finite.
    """

    name: str
    lines: list[str]
    low: str
    high: str
    first: int
    last: int
    value: str


class Picture(NamedTuple):
    """One picture of the log; `link` is a data URI, or a relative address for a very large file."""

    name: str
    step: int
    link: str


class Video(NamedTuple):
    """One result; `link` is relative to the page."""

    caption: str
    link: str
    moving_image: bool
    name: str = ""
    """The file's name."""


def read_json(path: Path, kind: type, notes: list[str]) -> Any:
    """A JSON file's content; an empty `kind` if it is missing or damaged.

    A damaged one adds a note.
    """
    if not path.exists():
        return kind()
    try:
        content = json_files.read(path)
    except (ValueError, OSError, UserError):
        content = None
    if not isinstance(content, kind):
        notes.append(f"{path.name} can't be read, so its contents are missing here.")
        return kind()
    return content


def at(config: dict[str, Any], path: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def curves(records: list[dict[str, Any]]) -> list[Curve]:
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for record in records:
        for name, value in record.items():
            if name not in ("step", "time", "text") and (value is None or isinstance(value, int | float)):
                points[name].append((record["step"], math.nan if value is None else float(value)))
    return [curve(name, series) for name, series in points.items()]


def curve(name: str, series: list[tuple[int, float]]) -> Curve:
    """Averages neighbouring values down to `_POINTS` points and scales them to the plot."""
    size = math.ceil(len(series) / _POINTS)
    chunks = [series[i : i + size] for i in range(0, len(series), size)]
    thin = [(sum(s for s, _ in chunk) / len(chunk), sum(v for _, v in chunk) / len(chunk)) for chunk in chunks]
    finite = [value for _, value in thin if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (math.nan, math.nan)
    first, last = series[0][0], series[-1][0]
    width, height = _CHART
    lines: list[list[str]] = [[]]
    for step, value in thin:
        if not math.isfinite(value):
            lines.append([])
            continue
        x = width * (step - first) / max(last - first, 1)
        y = height * (1 - (value - low) / (high - low)) if high > low else height / 2
        lines[-1].append(f"{x:.1f},{y:.1f}")
    drawn = [" ".join(line) for line in lines if line]
    return Curve(name, drawn, number(low), number(high), first, last, number(series[-1][1]))


def groups(curves: list[Curve]) -> dict[str, list[Curve]]:
    """Curves by heading, losses first.

    `mask_mean` and `mask_time` are under "Masks"; `NAME_l1` and single-word
    names are under the losses.
    """
    result: dict[str, list[Curve]] = {"Losses": []}
    others: dict[str, list[Curve]] = {title: [] for title in _GROUPS if title != "Losses"}
    for curve in curves:
        name = curve.name.lower()
        title = next((title for title, words in _GROUPS.items() if any(word in name for word in words)), None)
        subject, figure = [*re.split("[_/]", name, maxsplit=1), ""][:2]
        if title is None and figure not in ("", "l1"):
            result.setdefault(f"{subject.capitalize()}s", []).append(curve)
        else:
            (others if title in others else result)[title or "Losses"].append(curve)
    result |= others
    return {title: members for title, members in result.items() if members}


def pictures(workdir: Path, page_folder: Path) -> dict[str, list[Picture]]:
    """Pictures by name, oldest first: the first, the last, and some at even intervals between."""
    found: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in sorted((workdir / PICTURES).glob("*.png")):
        if match := re.fullmatch(r"([^.].*)_(\d{7,})\.png", path.name):
            found[match[1]].append((int(match[2]), path))
    result = {}
    for name, all_steps in found.items():
        count = min(_TIMELINE, len(all_steps))
        chosen = sorted(
            {round(i * (len(all_steps) - 1) / max(count - 1, 1)) for i in range(count)} | {len(all_steps) - 1}
        )
        result[name] = [Picture(name, *_embedded(all_steps[i], page_folder)) for i in chosen]
    return result


def _embedded(picture: tuple[int, Path], page_folder: Path) -> tuple[int, str]:
    step, path = picture
    return step, embedded(path, page_folder)


def embedded(path: Path, page_folder: Path) -> str:
    """The address of a PNG for the page: a data URI, or a link if the file is large."""
    if path.stat().st_size > _EMBED:
        return link(path, page_folder)
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def videos(folder: Path, page_folder: Path, notes: list[str]) -> list[Video]:
    """mp4 and gif files (one of each name), captioned by `captions.json` (file name: sentence)."""
    captions = read_json(folder / "captions.json", dict, notes)
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".mp4", ".gif"))
    shown = [p for p in found if p.suffix.lower() == ".mp4" or p.with_suffix(".mp4") not in found]
    if len(shown) > _VIDEOS:
        notes.append(f"{folder.name}/ has {len(shown)} results; the first {_VIDEOS} are shown.")
    return [
        Video(
            str(captions.get(path.name, path.stem)), link(path, page_folder), path.suffix.lower() == ".gif", path.name
        )
        for path in shown[:_VIDEOS]
    ]


def link(path: Path, page_folder: Path) -> str:
    return quote(os.fsencode(os.path.relpath(path, page_folder).replace(os.sep, "/")))


def number(value: object) -> str:
    """Four significant digits, "not finite", or a dash if it is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "\u2013"
    return f"{value:.4g}" if math.isfinite(value) else "not finite"
