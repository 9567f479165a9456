"""How do the authors' published videos score? X2Face, Monkey-Net, FOMM and Perturbed Masks on the
same clips.

Source and driver are different people, so there is no ground truth. Three things are measured for
every animation: its pose against the driver's (AKD, MKR), its identity against the source's
(AED, CSIM), and whether the source's background is preserved. All networks are stand-ins for the
papers' networks: the values rank the methods but are not comparable with the papers' tables.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import published_order
from maskanim_jax.evaluation.published_panels import METHODS, Panels, read_panels
from maskanim_jax.metrics.background import Background, background
from maskanim_jax.metrics.bootstrap import Interval, interval
from maskanim_jax.metrics.identity import Identity
from maskanim_jax.metrics.interface import Figures
from maskanim_jax.metrics.keypoints import Keypoints
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.progress import ProgressBar

FRAMES = 3
"""Default number of frames per clip."""

COMMON = 0.5
"""A network is used for a set if it finds at least this share of its keypoints (or faces) in one
frame of each clip's driver (or source).
"""


class SetFigures(NamedTuple):
    """The results of one set: a value per clip, method and key, and what follows from them."""

    name: str
    clips: dict[str, dict[str, Figures]]
    """The metrics by clip and method."""
    descriptions: dict[str, str]
    unused: list[str]
    """Networks that do not find their subject in this set."""

    def values(self, key: str) -> dict[str, list[float]]:
        """By method, one value for each clip that has the metric for every method."""
        whole = [figures for figures in self.clips.values() if all(key in figures[method] for method in METHODS)]
        return {method: [figures[method][key] for figures in whole] for method in METHODS}

    def table(self) -> dict[str, dict[str, Interval]]:
        """The mean over clips with its interval, by key and method."""
        rows = {key: self.values(key) for key in self.descriptions}
        return {
            key: {method: interval(values[method]) for method in METHODS}
            for key, values in rows.items()
            if values[METHODS[0]]
        }

    def sentences(self) -> list[str]:
        """Whether the published order is reproduced, by key."""
        return [
            published_order.sentence(self.name, key, self.values(key), "higher is better" in self.descriptions[key])
            for key in self.table()
        ]


def evaluate_set(
    name: str, paths: Sequence[Path], networks: Sequence[Any], frames: int = FRAMES, progress: bool = False
) -> SetFigures:
    """Measures `frames` frames of each video with the networks that find
    their subject in this set.
    """
    probes = [next(read_panels(path, 1)) for path in paths]
    used = [network for network in networks if _finds(network, probes)]
    unused = [network.name for network in networks if network not in used]
    measures = {method: _Measures(used) for method in METHODS}
    clips: dict[str, dict[str, Figures]] = {}
    for path in ProgressBar(paths, desc=name, unit="clip", disable=not progress):
        for panels in read_panels(path, frames):
            _add(measures, panels, used)
        clips[path.stem] = {method: measure.finish_clip() for method, measure in measures.items()}
    return SetFigures(name, clips, measures[METHODS[0]].descriptions, unused)


def _finds(network: Any, probes: Sequence[Panels]) -> bool:
    """Whether the network finds its subject in this set."""
    found = []
    for panels in probes:
        if hasattr(network, "points"):
            found.append(network.points(panels["driving"]).found.mean())
        else:
            found.append(network.embed(panels["source"]).found.mean())
    return float(np.mean(found)) >= COMMON


class _Measures:
    """All metrics of one method."""

    def __init__(self, networks: Sequence[Any]) -> None:
        self.keypoints = {network.name: Keypoints(network) for network in networks if hasattr(network, "points")}
        self.identity = {network.name: Identity(network) for network in networks if hasattr(network, "embed")}
        self.background = Background()
        self._all: list[Keypoints | Identity | Background] = [
            *self.keypoints.values(),
            *self.identity.values(),
            self.background,
        ]
        self.descriptions = {key: text for metric in self._all for key, text in metric.descriptions.items()}

    def finish_clip(self) -> Figures:
        return {key: value for metric in self._all for key, value in metric.finish_clip().items()}


def _add(measures: dict[str, _Measures], panels: Panels, networks: Sequence[Any]) -> None:
    """Measures a few frames of all methods; driver and source are processed once."""
    masks = zip(panels["source mask"][..., 0], panels["driving mask"][..., 0], strict=True)
    where = np.stack([background(*pair) for pair in masks])
    for method, measure in measures.items():
        measure.background.add(panels[method], panels["source"], where)
    for network in networks:
        if hasattr(network, "points"):
            wanted = network.points(panels["driving"])
            for method, measure in measures.items():
                measure.keypoints[network.name].add_points(network.points(panels[method]), wanted)
        if hasattr(network, "embed"):
            known = network.embed(panels["source"])
            for method, measure in measures.items():
                measure.identity[network.name].add_embedded(network.embed(panels[method]), known)


def as_text(figures: SetFigures) -> str:
    """A table of means over clips with their intervals, and the sentences."""
    table = figures.table()
    wide = max(len(key) for key in table)
    head = f"{figures.name}, {len(figures.clips)} clips, mean over clips (95 % of bootstrap draws)"
    lines = [head, " " * wide + "".join(f"{method:>26}" for method in METHODS)]
    for key, row in table.items():
        cells = (f"{one.mean:.3f} ({one.low:.3f}-{one.high:.3f})" for one in row.values())
        lines.append(f"{key:<{wide}}" + "".join(f"{cell:>26}" for cell in cells))
    if figures.unused:
        lines.append(f"not used, because they find too little in this set: {', '.join(figures.unused)}")
    return "\n".join([*lines, *figures.sentences()])


def as_json(sets: Sequence[SetFigures]) -> dict[str, Any]:
    """All measurements, with the meaning of each key."""
    return {
        figures.name: {
            "table": {
                key: {method: one._asdict() for method, one in row.items()} for key, row in figures.table().items()
            },
            "sentences": figures.sentences(),
            "clips": figures.clips,
            "measured": figures.descriptions,
            "unused_networks": figures.unused,
        }
        for figures in sets
    }


def write(folder: Path, sets: Sequence[SetFigures], facts: dict[str, Any]) -> None:
    """Writes `published.json` and `published.csv` to `folder`.

    Raises UserError if they can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / "published.json") as temporary:
            temporary.write_text(json.dumps({**facts, "sets": as_json(sets)}, indent=2))
        with (
            atomic_write(folder / "published.csv") as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            rows = csv.writer(file)
            rows.writerow(["set", "metric", "method", "mean", "low", "high", "clips"])
            for figures in sets:
                for key, row in figures.table().items():
                    count = len(figures.values(key)[METHODS[0]])
                    for method, one in row.items():
                        rows.writerow([figures.name, key, method, one.mean, one.low, one.high, count])
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): give another --output") from error
