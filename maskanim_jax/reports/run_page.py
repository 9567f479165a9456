"""What does a run's report show? On one page, results first: animations, strips,
curves, metrics, settings.

Curves are SVG and images are embedded; videos are linked, so send the page with its folder.
Every part is optional: the page says what is missing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskanim_jax.buckets.local_paths import fetched, in_words, in_working_copy
from maskanim_jax.errors import UserError
from maskanim_jax.reports import page_parts, players
from maskanim_jax.reports.headline import Health, headline, health
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.templates import rendered
from maskanim_jax.workdir.logs import read_log
from maskanim_jax.workdir.renamed_fields import upgrade_config, upgrade_figures
from maskanim_jax.workdir.results import ANIMATION, BEFORE

_OWN_PLACE = ("l1", "l1_copy_source", "ratio", "frames", "checkpoint_step")  # of reconstruction.json

_SUMMARY = {
    "system": "system",
    "reference": "reference",
    "frame size": "frame_size",
    "mask size": "mask.size",
    "batch size": "batch_size",
    "precision": "precision",
    "epochs": "optim.epochs",
    "learning rate": "optim.learning_rate",
    "seed": "seed",
    "VGG-19": "loss.vgg",
}


@in_working_copy()
def write_report(workdir: Path, output: Path | None = None) -> Path:
    """Writes the page of a workdir to `output`
    (default: `workdir/report.html`) and returns its path.

    Reads config.json, log.jsonl, pictures/, reconstruction.json, before.json, departures.json,
    summary.json, first_minute/, reconstruction/ and animation/ if they exist
    (`workdir.results` describes them). Raises UserError when the workdir isn't a folder or the
    output can't be written.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise UserError(f"{workdir} isn't a folder: give the --workdir that a run wrote to")
    output = Path(output) if output else workdir / "report.html"
    page = rendered("report.html", _content(workdir, output.parent), number=page_parts.number)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as temporary:
            temporary.write_text(page, encoding="utf-8", errors="replace")  # file names may not be valid text
    except OSError as error:
        raise UserError(f"{output} can't be written ({error.strerror}): give another --output") from error
    return output


def summary(workdir: Path) -> str:
    """The run's results in a few lines for the console; missing ones are omitted."""
    workdir = fetched(workdir)
    lines = []
    records = read_log(workdir)
    log = [record for record in records if "loss" in record]
    for name in (key for key in (log[-1] if log else ()) if key.startswith("loss_")):
        # A loss with a delayed start is 0 before it.
        counted = [record for record in log if isinstance(record.get(name), int | float) and record[name]]
        if len(counted) > 1:
            first, last = counted[0], counted[-1]
            lines.append(f"{name} {first[name]:.4g} at step {first['step']}, {last[name]:.4g} at step {last['step']}")
    figures = upgrade_figures(page_parts.read_json(workdir / "reconstruction.json", dict, []))
    try:
        if figures:
            lines += _reached(figures, health(workdir, records, _dict(figures.get("mask"))))
    except (KeyError, TypeError, ValueError):
        lines.append(f"{workdir / 'reconstruction.json'} lacks metrics: regenerate it with --mode=reconstruct")
    return "\n".join(lines)


def _reached(figures: dict[str, Any], found: Health) -> list[str]:
    """Lines on the held-out metrics; raises KeyError, TypeError or ValueError if one is
    missing or not a number.
    """
    lines = [
        f"held-out L1 {figures['l1']:.4f}; copying the source {figures['l1_copy_source']:.4f}; "
        f"ratio {figures['ratio']:.3f} over {figures['frames']} frames (checkpoint of step {figures['checkpoint_step']})"
    ]
    if mask := figures.get("mask"):
        lines.append(
            f"masks: mean {mask['mean']:.3f}, deviation over space {mask['std_space']:.3f}, over time {mask['std_time']:.3f}"
            + (
                ""
                if found.collapse_warnings is None
                else " (collapsed)"
                if found.collapse_warnings
                else " (not collapsed)"
            )
            + (f", IoU with the true silhouettes {mask['iou']:.3f}" if "iou" in mask else "")
        )
    return lines


def _content(workdir: Path, page_folder: Path) -> dict[str, Any]:
    """The variables of the template."""
    notes: list[str] = []
    config = upgrade_config(page_parts.read_json(workdir / "config.json", dict, notes))
    figures = upgrade_figures(page_parts.read_json(workdir / "reconstruction.json", dict, notes))
    paper_deviations = page_parts.read_json(workdir / "departures.json", list, notes)
    summary = page_parts.read_json(workdir / "summary.json", dict, notes)
    before = page_parts.read_json(workdir / BEFORE, dict, notes)
    records = read_log(workdir)
    clips = figures.get("clips")
    mask = _dict(figures.get("mask"))
    return {
        "title": str(config.get("name") or Path(in_words(workdir.resolve())).name),
        "workdir": in_words(workdir),
        "headline": headline(workdir, figures, health(workdir, records, mask)),
        "reference": {"paper": "the paper's text", "released": "the authors' released code"}.get(
            str(config.get("reference")), "not recorded"
        ),
        "steps": max((record["step"] for record in records), default=0),
        "hours": _hours(records),
        "chosen": {
            label: value for label, path in _SUMMARY.items() if (value := page_parts.at(config, path)) is not None
        },
        "config": json.dumps(config, indent=2) if config else "",
        "summary": json.dumps(summary, indent=2) if summary else "",
        "departures": [str(sentence) for sentence in paper_deviations],
        "untrained": page_parts.at(config, "loss.vgg") == "untrained",
        "figures": figures,
        "others": {n: v for n, v in figures.items() if n not in _OWN_PLACE and type(v) in (int, float)},
        "clips": [clip for clip in clips if isinstance(clip, dict)] if isinstance(clips, list) else [],
        "mask": mask,
        "before": str(before.get("label") or "before"),
        "changes": players.before_and_after(before, figures, notes),
        "groups": page_parts.groups(page_parts.curves(records)),
        "sentences": [(r["step"], str(r["text"])) for r in records if "text" in r][-40:],
        "pictures": page_parts.pictures(workdir, page_folder),
        "first_minute": players.first_minute(workdir, page_folder, notes),
        "animations": players.animations(workdir / ANIMATION, page_folder, notes),
        "reconstructions": page_parts.videos(workdir / "reconstruction", page_folder, notes),
        "notes": notes,
    }


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _hours(records: list[dict[str, Any]]) -> float:
    times = [time for record in records if isinstance(time := record.get("time"), int | float)]
    return (times[-1] - times[0]) / 3600 if times else 0.0
