"""How are several runs plotted together? Curves over steps, and means with intervals, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from maskanim_jax.reports.page_parts import number

COLOURS = ("#2f6fdf", "#d9622b", "#2c9a62", "#a23fb5", "#b8860b", "#d0417e", "#5d6675", "#17a2b8")
"""Colours of the runs, in order; they repeat after the last."""
SHOWN = ("test_l1", "test_ratio", "test_mask_iou", "test_mask_std_time", "probe_result_drivers", "probe_leak")
"""Curves that are drawn if at least one run has them; all losses follow."""
WIDTH, HEIGHT = 300.0, 120.0
_POINTS = 200


class Line(NamedTuple):
    """One run in a plot; `points` is an SVG point list."""

    label: str
    colour: str
    points: str
    last: str


class Plot(NamedTuple):
    """One scalar of several runs over the steps, ready to draw."""

    name: str
    low: str
    high: str
    first: int
    last: int
    lines: list[Line]


class Bar(NamedTuple):
    """A value and its interval as x positions, from 0 to WIDTH."""

    label: str
    colour: str
    low: float
    mean: float
    high: float
    text: str


def colours(labels: Sequence[str]) -> dict[str, str]:
    """A colour for each run."""
    return {label: COLOURS[i % len(COLOURS)] for i, label in enumerate(labels)}


def plots(records: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Plot]:
    """Curves from the runs' logs, by label: SHOWN, then the losses."""
    names = [name for log in records.values() for record in log for name in record]
    losses = [name for name in dict.fromkeys(names) if name.startswith("loss")]
    found = (_plot(name, records) for name in (*SHOWN, *losses))
    return [plot for plot in found if plot is not None]


def _plot(name: str, records: Mapping[str, Sequence[Mapping[str, Any]]]) -> Plot | None:
    series = {}
    for label, log in records.items():
        points = [
            (record["step"], float(value))
            for record in log
            if isinstance(value := record.get(name), int | float) and math.isfinite(value)
        ]
        if points:
            size = math.ceil(len(points) / _POINTS)
            chunks = [points[i : i + size] for i in range(0, len(points), size)]
            series[label] = [tuple(sum(part) / len(chunk) for part in zip(*chunk, strict=True)) for chunk in chunks]
    if not series:
        return None
    steps = [step for points in series.values() for step, _ in points]
    values = [value for points in series.values() for _, value in points]
    low, high, first, last = min(values), max(values), min(steps), max(steps)

    def place(step: float, value: float) -> str:
        x = WIDTH * (step - first) / ((last - first) or 1)
        return f"{x:.1f},{HEIGHT * (1 - (value - low) / ((high - low) or 1)):.1f}"

    shades = colours(list(records))
    lines = [
        Line(label, shades[label], " ".join(place(*point) for point in points), number(points[-1][1]))
        for label, points in series.items()
    ]
    return Plot(name, number(low), number(high), round(first), round(last), lines)


def bars(rows: Sequence[tuple[str, str, Mapping[str, float]]]) -> list[Bar]:
    """Converts (label, colour, metric with value, low and high) to positions on one scale, which
    begins at 0 if all values are positive.
    """
    if not rows:
        return []
    low = min(0.0, *(figure["low"] for _, _, figure in rows), *(figure["value"] for _, _, figure in rows))
    high = max(*(figure["high"] for _, _, figure in rows), *(figure["value"] for _, _, figure in rows), low + 1e-12)
    scale = WIDTH / (high - low)
    return [
        Bar(
            label,
            colour,
            scale * (figure["low"] - low),
            scale * (figure["value"] - low),
            scale * (figure["high"] - low),
            number(figure["value"]),
        )
        for label, colour, figure in rows
    ]


def svg(plots_: Sequence[Plot], columns: int = 3) -> str:
    """A complete SVG file with plots side by side on a white background, and a legend."""
    if not plots_:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>\n'
    wide, tall = WIDTH + 40, HEIGHT + 70
    labels = {line.label: line.colour for plot in plots_ for line in plot.lines}
    rows = math.ceil(len(plots_) / columns)
    used = min(columns, len(plots_))
    width, height = used * wide, rows * tall + 18 * len(labels) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        'font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for i, plot in enumerate(plots_):
        parts.append(f'<g transform="translate({i % columns * wide + 20:.0f} {i // columns * tall + 30:.0f})">')
        parts.append(f'<text y="-10" font-weight="bold">{escape(plot.name)}</text>')
        parts.append(
            f'<path d="M0 0H{WIDTH:.0f}M0 {HEIGHT / 2:.0f}H{WIDTH:.0f}M0 {HEIGHT:.0f}H{WIDTH:.0f}" stroke="#dfe3ea" fill="none"/>'
        )
        for line in plot.lines:
            parts.append(f'<polyline fill="none" stroke-width="1.6" stroke="{line.colour}" points="{line.points}"/>')
        for x, y, anchor, text in (
            (0.0, 11.0, "start", plot.high),
            (0.0, HEIGHT - 3, "start", plot.low),
            (0.0, HEIGHT + 16, "start", f"step {plot.first}"),
            (WIDTH, HEIGHT + 16, "end", str(plot.last)),
        ):
            parts.append(f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" fill="#5d6675">{escape(text)}</text>')
        parts.append("</g>")
    for i, (label, colour) in enumerate(labels.items()):
        y = rows * tall + 18 * i + 6
        parts.append(f'<rect x="20" y="{y:.0f}" width="18" height="4" fill="{colour}"/>')
        parts.append(f'<text x="44" y="{y + 6:.0f}">{escape(label)}</text>')
    return "\n".join([*parts, "</svg>\n"])
