"""How are the tables, curves and strips of docs/study.md regenerated?

Only the text between the two markers is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.reports.comparison_page import markdown
from maskanim_jax.reports.plots import plots, svg
from maskanim_jax.reports.runs import Run, read_runs
from maskanim_jax.reports.seeds import by_seed
from maskanim_jax.utils.atomic_files import atomic_write

BEGIN, END = "<!-- generated: begin -->", "<!-- generated: end -->"
CURVES = ("test_l1", "test_ratio", "test_mask_iou", "test_mask_std_time", "probe_leak")
STRIP_PAIRS = 4
_SHOWN_SIZE = 96  # pixels of one picture in the strips


def regenerate(page: Path, folders: Sequence[Path], figures: Mapping[str, Any]) -> None:
    """Replaces the generated part of `page` (created if missing). Its pictures go into a folder
    beside it that has the page's name. Of runs that differ only in their seed, the first has a
    strip.

    Raises UserError if an existing page lacks the markers, or if it can't be written.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else f"# The study\n\n{BEGIN}\n{END}\n"
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise UserError(f"{page} lacks the lines {BEGIN} and {END}: add them where the tables belong")
    runs = read_runs(folders)
    folder = page.with_suffix("")
    parts = [markdown(figures)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for found in figures["sets"]:
            logs = {run.label: run.records for run in runs if run.label in {row["run"] for row in found["rows"]}}
            drawn = [plot for plot in plots(logs) if plot.name in CURVES]
            name = f"curves-{found['name']}.svg"
            with atomic_write(folder / name) as temporary:
                temporary.write_text(svg(drawn), encoding="utf-8")
            parts.append(f"### Curves, {found['name']}\n\n![held-out figures over the steps]({folder.name}/{name})\n")
        measured = [group.runs[0] for group in by_seed([run for run in runs if run.truth])]
        if strips := puppet_strips(measured):
            parts.append("### Puppets animated by others\n")
            for label, picture in strips.items():
                with atomic_write(folder / f"{label}.png") as temporary:
                    _image(picture).save(temporary, format="PNG", optimize=True)
                parts.append(f"{label}: source, driver, ground truth, then the result of each variant.\n")
                parts.append(f"![source, driver, truth, results of {label}]({folder.name}/{label}.png)\n")
        with atomic_write(page) as temporary:
            temporary.write_text(f"{before}{BEGIN}\n\n" + "\n".join(parts) + f"\n{END}{after}", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{page} can't be written ({error.strerror}): give another --page") from error


def puppet_strips(runs: Sequence[Run]) -> dict[str, np.ndarray]:
    """A picture (H, W, 3) uint8 of each run on puppets. Each row is one pair: source in its own
    pose, driver, ground truth, results of all variants.

    The pairs are the first ones in its truth.json; the frame is the middle
    one of the driver's clip.
    """
    from input_pipeline.puppets.dataset import clips_of
    from maskanim_jax.animation.generate import animate
    from maskanim_jax.checkpoints.loading import load_run
    from maskanim_jax.evaluation.cross_identity_scenes import choose_pairs, draw_scene
    from maskanim_jax.video.strips import grid, strip

    found = {}
    for run in runs:
        loaded = load_run(run.folder)
        system = loaded.system
        clips = clips_of(loaded.config.data.puppets, run.truth.get("split", "test"))
        rows = []
        for number, pair in enumerate(choose_pairs(clips, STRIP_PAIRS, int(run.truth.get("seed", 0)))):
            scene = draw_scene(clips, pair, 3, system.frame_size)
            still = scene.starts["own"][0]
            shown: dict[str, np.ndarray] = {
                "source": still,
                "driver": scene.drivings[1],
                "truth": scene.truths[1].frame,
            }
            for name, given in system.variants.items():
                options = system.animation_options(given)
                results = animate(
                    system,
                    loaded.variables,
                    still,
                    scene.drivings[1:2],
                    options,
                    first=scene.drivings[0],
                    names=(system.result,),
                )
                shown[name] = next(iter(results))[system.result]
            rows.append(strip(shown, list(shown), _SHOWN_SIZE, captions=number == 0))
        found[run.label] = grid(rows)
    return found


def _image(picture: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(picture)
