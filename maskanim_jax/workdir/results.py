"""What are the result files in a run's folder called?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ANIMATION = "animation"
"""Folder with the results of `--mode=animate`: NAME.mp4, NAME.gif, NAME-strip.mp4."""
INPUTS = "inputs"
"""Folder in `ANIMATION`: NAME-source.png and NAME-driving.mp4 of the result NAME.mp4."""
FIRST_MINUTE = "first_minute"
"""Optional folder with source.png, driving.mp4 and out.mp4: an animation
that the report shows first.
"""
BEFORE = "before.json"
"""Optional file in the form of reconstruction.json: metrics from before training, shown
next to the run's metrics.
"""


TRUTH = "truth.json"
"""Optional file: puppets animated by other puppets, measured against the known ground truth."""


def reconstruction_stem(split: str) -> str:
    """Name of the folder and, with .json, of the file that `--mode=reconstruct` writes."""
    return "reconstruction" if split == "test" else f"reconstruction_{split}"


class InputPair(NamedTuple):
    """A source picture and a driving video."""

    source: Path
    driving: Path


def inputs_of(folder: Path, name: str) -> InputPair:
    """The paths of source and driver of the result NAME in `folder`; they may not exist."""
    return InputPair(folder / INPUTS / f"{name}-source.png", folder / INPUTS / f"{name}-driving.mp4")


def input_pairs(workdir: Path) -> Iterator[InputPair]:
    """The pairs that a run's `--mode=animate` used, by name, if both files exist."""
    folder = workdir / ANIMATION
    for path in sorted((folder / INPUTS).glob("*-source.png")):
        pair = inputs_of(folder, path.name.removesuffix("-source.png"))
        if pair.driving.is_file():
            yield pair
