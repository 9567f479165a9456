"""What does a run's workdir show, and several of them side by side? One self-contained page: curves, pictures, figures, settings.

Curves are drawn as SVG and pictures are embedded, so `report.html` can be mailed alone; videos are linked.
Everything is optional: the page says in words what isn't there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from maskanim_jax.errors import UserError, exit_with_sentence
from maskanim_jax.reports import page_parts
from maskanim_jax.utils.atomic_files import replacing
from maskanim_jax.workdir.logs import read_log

_ALIVE = 0.02  # a mask whose deviation over time is below this does not follow the driver
_OWN_PLACE = ("l1", "l1_repeat_source", "ratio", "frames", "checkpoint_step")  # of reconstruction.json
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
    environment.filters["number"] = page_parts.number
    page = environment.get_template("report.html").render(_content(workdir, output.parent))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            temporary.write_text(page, encoding="utf-8", errors="replace")  # names of files may be no text
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}): give another --output") from error
    return output


def summary(workdir: Path) -> str:
    """What the run reached, in a few lines for the console; what is missing is left out."""
    lines = []
    log = [record for record in read_log(workdir) if "loss" in record]
    for name in (key for key in (log[-1] if log else ()) if key.startswith("loss_")):
        counted = [
            record for record in log if isinstance(record.get(name), int | float) and record[name]
        ]  # a loss that is counted from a later epoch is 0 before
        if len(counted) > 1:
            first, last = counted[0], counted[-1]
            lines.append(f"{name} {first[name]:.4g} at step {first['step']}, {last[name]:.4g} at step {last['step']}")
    figures = page_parts.read_json(workdir / "reconstruction.json", dict, [])
    try:
        lines += _reached(figures) if figures else []
    except (KeyError, TypeError, ValueError):
        lines.append(
            f"{workdir / 'reconstruction.json'} is there but lacks figures: make it again with --mode=reconstruct"
        )
    return "\n".join(lines)


def _reached(figures: dict[str, Any]) -> list[str]:
    """Lines on the held-out figures; raises KeyError, TypeError or ValueError when one is missing or no number."""
    lines = [
        f"held-out L1 {figures['l1']:.4f}; repeating the source {figures['l1_repeat_source']:.4f}; "
        f"ratio {figures['ratio']:.3f} over {figures['frames']} frames (checkpoint of step {figures['checkpoint_step']})"
    ]
    if mask := figures.get("mask"):
        lines.append(
            f"masks: mean {mask['mean']:.3f}, deviation over space {mask['std_space']:.3f}, over time {mask['std_time']:.3f}"
            + (" (alive)" if mask["std_time"] > _ALIVE else " (NOT alive)")
            + (f", IoU with the true silhouettes {mask['iou']:.3f}" if "iou" in mask else "")
        )
    return lines


def _content(workdir: Path, page_folder: Path) -> dict[str, Any]:
    """What the template needs."""
    notes: list[str] = []
    config = page_parts.read_json(workdir / "config.json", dict, notes)
    figures = page_parts.read_json(workdir / "reconstruction.json", dict, notes)
    departures = page_parts.read_json(workdir / "departures.json", list, notes)
    summary = page_parts.read_json(workdir / "summary.json", dict, notes)
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
        "hours": _hours(records),
        "chosen": {
            label: value for label, path in _SUMMARY.items() if (value := page_parts.at(config, path)) is not None
        },
        "config": json.dumps(config, indent=2) if config else "",
        "summary": json.dumps(summary, indent=2) if summary else "",
        "departures": [str(sentence) for sentence in departures],
        "untrained": page_parts.at(config, "loss.vgg") == "untrained",
        "figures": figures,
        "others": {n: v for n, v in figures.items() if n not in _OWN_PLACE and type(v) in (int, float)},
        "clips": [clip for clip in clips if isinstance(clip, dict)] if isinstance(clips, list) else [],
        "mask": mask if isinstance(mask, dict) else {},
        "still": isinstance(mask, dict) and isinstance(s := mask.get("std_time"), float) and s < _ALIVE,
        "alive": _ALIVE,
        "groups": page_parts.groups(page_parts.curves(records)),
        "sentences": [(r["step"], str(r["text"])) for r in records if "text" in r][-40:],
        "pictures": page_parts.pictures(workdir, page_folder),
        "videos": {
            "Reconstruction of held-out clips": page_parts.videos(workdir / "reconstruction", page_folder, notes),
            "Animation": page_parts.videos(workdir / "animation", page_folder, notes),
        },
        "notes": notes,
    }


def _hours(records: list[dict[str, Any]]) -> float:
    times = [time for record in records if isinstance(time := record.get("time"), int | float)]
    return (times[-1] - times[0]) / 3600 if times else 0.0


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m maskanim_jax.report",
        description="Writes one HTML page on a run: curves, pictures, figures, settings; or, of several runs, their figures side by side.",
    )
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN", help="folders of runs to set side by side")
    parser.add_argument("--workdir", type=Path, help="folder of one run, for the page on it alone")
    parser.add_argument(
        "--output",
        type=Path,
        help="of one run a file (default: report.html in the workdir); of several a folder or an .html (default: comparison/)",
    )
    given = parser.parse_args(arguments)
    if bool(given.runs) == bool(given.workdir):
        raise UserError("give --workdir=RUN for the page on one run, or the folders of several runs")
    if given.workdir:
        print(f"the report is {write_report(given.workdir, given.output)}")
        return
    from maskanim_jax.reports import comparison_page

    written = comparison_page.write_comparison(given.runs, given.output or Path("comparison"))
    print(f"the report is {written.page}; its figures are in {written.csv} and {written.json}")


if __name__ == "__main__":
    exit_with_sentence(main)
