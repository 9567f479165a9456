"""How is a comparison of runs written? As a page, CSV, JSON and Markdown tables.

Measured metrics have their own tables; the papers' tables show published numbers only.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from maskanim_jax.errors import UserError
from maskanim_jax.reports import published_tables
from maskanim_jax.reports.comparison import compare
from maskanim_jax.reports.differences import better
from maskanim_jax.reports.page_parts import link, number
from maskanim_jax.reports.plots import bars, colours, plots
from maskanim_jax.reports.runs import Run, read_runs
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.templates import rendered

_PLAYERS = 6  # clips shown of each set
TOLD = ("l1", "l1_figure", "ssim", "iou", "joint_error", "shape_leak", "leak", "known_joint_error")
"""Metrics of the cross-identity evaluation in the Markdown tables; page, CSV and JSON have all."""
COLUMNS = (
    *("table", "set", "run", "variant", "start", "metric", "value", "low", "high", "clips", "against", "verdict"),
    *("lowest", "highest"),
)
"""The last two are of single seeds, where the row is an average over seeds."""


class Written(NamedTuple):
    """The files of a comparison."""

    page: Path
    csv: Path
    json: Path
    figures: dict[str, Any]


def write_comparison(folders: Sequence[Path], output: Path) -> Written:
    """Writes the page, CSV and JSON of several runs to `output`: a folder, or the
    name of the page (*.html).

    Raises UserError for a folder that is not a run or has no metrics, and when the
    output can't be written.
    """
    runs = read_runs(folders)
    figures = compare(runs)
    page = output if output.suffix.lower() in (".html", ".htm") else output / "index.html"
    stem = page.with_suffix("") if page is output else output / "figures"
    written = Written(page, stem.with_suffix(".csv"), stem.with_suffix(".json"), figures)
    text = rendered("compare.html", _content(runs, figures, page.parent), number=number)
    content = {page: text, written.csv: csv_text(figures), written.json: json.dumps(figures, indent=2) + "\n"}
    for path, data in content.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(path) as temporary:
                temporary.write_text(data, encoding="utf-8", errors="replace", newline="")
        except OSError as error:
            raise UserError(f"{path} can't be written ({error.strerror}): give another --output") from error
    return written


def _content(runs: Sequence[Run], figures: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The variables of the template."""
    shades = colours([run.label for run in runs])
    by_label = {run.label: run for run in runs}
    sets = []
    for found in figures["sets"]:
        members = [by_label[row["run"]] for row in found["rows"] if row["run"] in by_label]
        charts = {
            metric: bars(
                [
                    (r["run"], shades.get(r["run"], "#5d6675"), r["figures"][metric])
                    for r in found["rows"]
                    if metric in r["figures"]
                ]
            )
            for metric in found["metrics"]
            if better(metric)
        }
        logs = {run.label: run.records for run in members}
        sets.append({**found, "charts": charts, "plots": plots(logs), "players": _players(members, folder)})
    return {
        **figures,
        "sets": sets,
        "colours": shades,
        "published": published_tables.TABLES,
        "better": {m: better(m) for found in (*figures["sets"], *figures["truth"]) for m in found["metrics"]},
        "notes": [f"{run.label}: {note}" for run in runs for note in run.notes],
    }


def _players(members: Sequence[Run], folder: Path) -> list[dict[str, Any]]:
    """Results of the same clip side by side: reconstructions, then animations.

    Clips without any result are omitted.
    """
    found = []
    for what in ("reconstruction", "animation"):
        names = sorted({path.name for run in members for path in (run.folder / what).glob("*.mp4")})
        for name in [name for name in names if not name.endswith("-strip.mp4")][:_PLAYERS]:
            videos = [
                (run.label, link(run.folder / what / name, folder))
                for run in members
                if (run.folder / what / name).is_file()
            ]
            found.append({"what": what, "name": Path(name).stem, "videos": videos})
    return found


def csv_text(figures: Mapping[str, Any]) -> str:
    """One row per metric of each run and of each average over seeds, and one per difference, with
    the columns COLUMNS.
    """
    lines: list[dict[str, Any]] = []
    for kind in ("sets", "truth"):
        table = "reconstruction" if kind == "sets" else "cross-identity truth"
        for found in figures[kind]:
            for row in (*found["rows"], *found["seeds"]):
                named = {
                    "table": table,
                    "set": found["name"],
                    **{k: row[k] for k in ("run", "variant", "start") if k in row},
                }
                lines += [{**named, "metric": metric, **figure} for metric, figure in row["figures"].items()]
            for row in found["differences"]:
                named = {k: row[k] for k in COLUMNS if k in row}
                lines.append(
                    {"table": f"{table}, differences", "set": found["name"], "value": row["difference"], **named}
                )
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _unformed(value) for key, value in line.items()} for line in lines)
    return buffer.getvalue()


def _unformed(value: Any) -> Any:
    """The name; a leading apostrophe is added if a spreadsheet would read it as a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def markdown(figures: Mapping[str, Any]) -> str:
    """The tables as Markdown: costs, reconstruction, differences, cross-identity evaluation."""
    parts = ["### What each run cost\n", _costs(figures["runs"])]
    for found in figures["sets"]:
        metrics = [metric for metric in found["metrics"] if better(metric)]
        rows = [[row["run"], *(_figure(row["figures"].get(m)) for m in metrics)] for row in _averaged_rows(found)]
        parts += [
            f"\n### Reconstruction, {_cell(found['name'])}: {found['clips']} held-out clips, {found['frames']} frames\n",
            _of_seeds(found),
            _table(["run", *metrics], rows),
            "\n" + _differences(found["differences"]),
        ]
    for found in figures["truth"]:
        metrics = [metric for metric in found["metrics"] if metric in TOLD]
        told = [row for row in found["differences"] if row["metric"] in TOLD]
        rows = [
            [
                row["start"],
                row["run"],
                "" if row.get("reference") else row["variant"],
                *(_figure(row["figures"].get(m)) for m in metrics),
            ]
            for row in _averaged_rows(found)
        ]
        parts += [
            f"\n### Cross-identity truth, {_cell(found['name'])}: {found['pairs']} pairs\n",
            _of_seeds(found),
            _table(["source starts in", "run", "variant", *metrics], rows),
            "\n" + _differences(told, starts=True),
        ]
    return "\n".join(part for part in parts if part) + "\n"


def _averaged_rows(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows, those of several seeds replaced by their average."""
    group_of = {run: group["run"] for group in found["seeds"] for run in group["runs"]}
    averages = {(group["run"], group.get("start"), group.get("variant")): group for group in found["seeds"]}
    rows: list[Mapping[str, Any]] = []
    for row in found["rows"]:
        label = row["run"] if row.get("reference") else group_of.get(row["run"], row["run"])
        average = averages.get((label, row.get("start"), row.get("variant")), row)
        if average not in rows:
            rows.append(average)
    return rows


def _of_seeds(found: Mapping[str, Any]) -> str:
    """How the figures of several seeds are to be read."""
    if not found["seeds"]:
        return ""
    return (
        "Figures of several seeds are averages with their interval, and in parentheses the lowest and the highest of "
        "a single seed.\n"
    )


def _costs(runs: Sequence[Mapping[str, Any]]) -> str:
    columns = ["run", "system", "seed", "steps", "batch", "parameters", "hours of steps", "checkpoint measured"]
    rows = [
        [
            run["run"],
            run["system"],
            run["seed"],
            run["steps"],
            run["batch"],
            "" if run["parameters"] is None else f"{run['parameters']:,}",
            "" if run["hours"] is None else f"{run['hours']:.2f}",
            run["checkpoint_step"],
        ]
        for run in runs
    ]
    return _table(columns, rows)


def _differences(differences: Sequence[Mapping[str, Any]], starts: bool = False) -> str:
    if not differences:
        return ""
    columns = [
        *(["source starts in"] if starts else []),
        "run",
        "against",
        "figure",
        "difference",
        "better on",
        "in words",
    ]
    rows = [
        [
            *([row["start"]] if starts else []),
            row["run"],
            row["against"],
            row["metric"],
            f"{row['difference']:+.3g} [{row['low']:+.2g}, {row['high']:+.2g}]" + _single_seeds(row, "+.3g"),
            "" if row["better_on"] is None else f"{row['better_on']} of {row['clips']}",
            row["verdict"],
        ]
        for row in differences
    ]
    return _table(columns, rows)


def _figure(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return ""
    return f"{figure['value']:.4g} [{figure['low']:.3g}, {figure['high']:.3g}]" + _single_seeds(figure, ".4g")


def _single_seeds(figure: Mapping[str, Any], form: str) -> str:
    return f" ({figure['lowest']:{form}} to {figure['highest']:{form}})" if "lowest" in figure else ""


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    """The text of one cell, escaped: a name must not end the cell or open a tag."""
    text = "" if value is None else str(value)
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
