"""What does a run's workdir show? One self-contained page: curves, pictures, figures, settings.

Curves are drawn as SVG and pictures are embedded, so `report.html` can be mailed alone; videos are linked.
Everything is optional: the page says in words what isn't there.
"""

from __future__ import annotations

import argparse
import base64
import json
import math
import os
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from maskanim_jax.errors import UserError, exit_with_sentence
from maskanim_jax.files import replacing
from maskanim_jax.logs import PICTURES, read_log

_TIMELINE = 6  # pictures of one name in the time line
_VIDEOS = 24  # of one folder
_POINTS = 300  # of one curve
_CHART = (300.0, 120.0)  # width and height of a curve's plot, in SVG units
_EMBED = 4 << 20  # bytes; larger pictures are linked
_ALIVE = 0.02  # a mask whose deviation over time is below this does not follow the driver
# A scalar belongs to the first group with one of its words in the name; the rest group by what they are figures of.
_GROUPS = {
    "Held-out clips": ("eval", "held_out", "test_", "test/"),
    "Losses": ("loss",),
    "Learning rates": ("learning_rate", "lr"),
    "Speed": ("per_second", "speed", "wait", "seconds", "epoch"),
}
_SUMMARY = {
    "system": "system",
    "reading": "reading",
    "frame size": "frame_size",
    "mask size": "mask.size",
    "batch size": "batch_size",
    "precision": "precision",
    "epochs": "optim.epochs",
    "learning rate": "optim.learning_rate",
    "seed": "seed",
    "VGG-19": "loss.vgg",
}


class Curve(NamedTuple):
    """One scalar over the steps, ready to draw: `lines` are SVG point lists, broken where it isn't finite."""

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


def write_report(workdir: Path, output: Path | None = None) -> Path:
    """Writes the page of a workdir to `output` (default: `workdir/report.html`) and returns its path.

    Reads config.json, log.jsonl, pictures/, reconstruction.json, departures.json, summary.json,
    reconstruction/ and animation/ where they are. Raises UserError when the workdir isn't a folder or the
    output can't be written.
    """
    import jinja2

    workdir = Path(workdir)
    if not workdir.is_dir():
        raise UserError(f"{workdir} isn't a folder: give the --workdir that a run wrote to")
    output = Path(output) if output else workdir / "report.html"
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("maskanim_jax"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    page = environment.get_template("report.html").render(_content(workdir, output.parent))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            temporary.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}): give another --output") from error
    return output


def summary(workdir: Path) -> str:
    """What the run reached, in a few lines for the console; what is missing is left out."""
    lines = []
    log = [record for record in read_log(workdir) if "loss" in record]
    for name in (key for key in (log[-1] if log else ()) if key.startswith("loss_")):
        counted = [
            record for record in log if record.get(name)
        ]  # a loss that is counted from a later epoch is 0 before
        if len(counted) > 1:
            first, last = counted[0], counted[-1]
            lines.append(f"{name} {first[name]:.4g} at step {first['step']}, {last[name]:.4g} at step {last['step']}")
    figures = _read(workdir / "reconstruction.json", dict, [])
    if figures:
        lines.append(
            f"held-out L1 {figures['l1']:.4f}; repeating the source {figures['l1_repeat_source']:.4f}; "
            f"ratio {figures['ratio']:.3f} over {figures['frames']} frames (checkpoint of step {figures['checkpoint_step']})"
        )
        mask = figures.get("mask")
        if mask:
            lines.append(
                f"masks: mean {mask['mean']:.3f}, deviation over space {mask['std_space']:.3f}, over time {mask['std_time']:.3f}"
                + (" (alive)" if mask["std_time"] > _ALIVE else " (NOT alive)")
                + (f", IoU with the true silhouettes {mask['iou']:.3f}" if "iou" in mask else "")
            )
    return "\n".join(lines)


def _content(workdir: Path, page_folder: Path) -> dict[str, Any]:
    """What the template needs."""
    notes: list[str] = []
    config = _read(workdir / "config.json", dict, notes)
    figures = _read(workdir / "reconstruction.json", dict, notes)
    departures = _read(workdir / "departures.json", list, notes)
    summary = _read(workdir / "summary.json", dict, notes)
    records = read_log(workdir)
    clips = figures.get("clips")
    mask = figures.get("mask")
    return {
        "title": str(config.get("name") or workdir.resolve().name),
        "workdir": str(workdir),
        "reading": {"paper": "the paper's text", "released": "the authors' released code"}.get(
            str(config.get("reading")), "not recorded"
        ),
        "steps": max((record["step"] for record in records), default=0),
        "hours": (records[-1].get("time", 0) - records[0].get("time", 0)) / 3600 if records else 0.0,
        "chosen": {label: value for label, path in _SUMMARY.items() if (value := _at(config, path)) is not None},
        "config": json.dumps(config, indent=2) if config else "",
        "summary": json.dumps(summary, indent=2) if summary else "",
        "departures": [str(sentence) for sentence in departures],
        "untrained": _at(config, "loss.vgg") == "untrained",
        "figures": figures,
        "clips": [clip for clip in clips if isinstance(clip, dict)] if isinstance(clips, list) else [],
        "mask": mask if isinstance(mask, dict) else {},
        "still": isinstance(mask, dict) and isinstance(s := mask.get("std_time"), float) and s < _ALIVE,
        "alive": _ALIVE,
        "groups": _groups(_curves(records)),
        "sentences": [(r["step"], str(r["text"])) for r in records if "text" in r][-40:],
        "pictures": _pictures(workdir, page_folder),
        "videos": {
            "Reconstruction of held-out clips": _videos(workdir / "reconstruction", page_folder, notes),
            "Animation": _videos(workdir / "animation", page_folder, notes),
        },
        "notes": notes,
    }


def _read(path: Path, kind: type, notes: list[str]) -> Any:
    """A JSON file's content; an empty `kind` when there is none, with a note when it is damaged."""
    if not path.exists():
        return kind()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError):
        content = None
    if not isinstance(content, kind):
        notes.append(f"{path.name} is there but can't be read, so what it says is missing here.")
        return kind()
    return content


def _at(config: dict[str, Any], path: str) -> Any:
    """The value at a dotted path, or None."""
    value: Any = config
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _curves(records: list[dict[str, Any]]) -> list[Curve]:
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for record in records:
        for name, value in record.items():
            if name not in ("step", "time", "text") and (value is None or isinstance(value, int | float)):
                points[name].append((record["step"], math.nan if value is None else float(value)))
    return [_curve(name, series) for name, series in points.items()]


def _curve(name: str, series: list[tuple[int, float]]) -> Curve:
    """Averages neighbours down to `_POINTS` and scales to the plot."""
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
    return Curve(name, drawn, _number(low), _number(high), first, last, _number(series[-1][1]))


def _groups(curves: list[Curve]) -> dict[str, list[Curve]]:
    """Curves by heading, losses first; `mask_mean` and `mask_time` are "Masks", an error or a name alone counts as a loss."""
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


def _pictures(workdir: Path, page_folder: Path) -> dict[str, list[Picture]]:
    """By name, oldest first: the first, the last, and some evenly between."""
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
    if path.stat().st_size > _EMBED:
        return step, _link(path, page_folder)
    return step, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _videos(folder: Path, page_folder: Path, notes: list[str]) -> list[Video]:
    """mp4 and gif files (one of each name), captioned by `captions.json` (file name: sentence)."""
    captions = _read(folder / "captions.json", dict, notes)
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".mp4", ".gif"))
    shown = [p for p in found if p.suffix.lower() == ".mp4" or p.with_suffix(".mp4") not in found]
    if len(shown) > _VIDEOS:
        notes.append(f"{folder.name}/ holds {len(shown)} results, of which the first {_VIDEOS} are shown.")
    return [
        Video(str(captions.get(path.name, path.stem)), _link(path, page_folder), path.suffix.lower() == ".gif")
        for path in shown[:_VIDEOS]
    ]


def _link(path: Path, page_folder: Path) -> str:
    return quote(os.path.relpath(path, page_folder).replace(os.sep, "/"))


def _number(value: object) -> str:
    """Four significant digits, "not finite", a dash for what isn't a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "\u2013"
    return f"{value:.4g}" if math.isfinite(value) else "not finite"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskanim_jax.report",
        description="Writes one HTML page on a run: curves, pictures, figures, settings.",
    )
    parser.add_argument("--workdir", type=Path, required=True, help="folder of a run")
    parser.add_argument("--output", type=Path, help="default: report.html in the workdir")
    given = parser.parse_args(arguments)
    print(f"the report is {write_report(given.workdir, given.output)}")


if __name__ == "__main__":
    exit_with_sentence(main)
