"""Do the masks show pale figures, too?

`python -m benchmarks.pale_figures RUN --data SHARDS` compares m's masks of the validation clips
with silhouettes. A clip with a flat background needs no annotation: the figure is what differs from
the background's colour. The IoU is given for dark, medium and pale figures, at several thresholds
of the mask.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from input_pipeline.shards import Split, open_split
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.nn.resize import bilinear

DIFFERENCE = 0.08
"""A pixel belongs to the figure if a channel differs more from the background, in [0, 1]."""
FLAT = 0.9
"""The fraction of a clip's border that must have the background's colour."""
GROUPS = ("dark", "medium", "pale")
DARK, PALE = 0.4, 0.65
"""Mean brightness in [0, 1] below which a figure is dark, and above which it is pale."""


class Silhouettes(NamedTuple):
    """Figures of one clip on a flat background."""

    frames: np.ndarray  # (N, S, S, 3), [0, 1]
    figures: np.ndarray  # (N, S, S), bool
    brightness: float  # mean over the figure, [0, 1]


def silhouettes(frames: np.ndarray) -> Silhouettes | None:
    """The figures of (N, S, S, 3) frames in [0, 1]; None if the background is not flat or no pixel
    differs from it.
    """
    border = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], 1).reshape(-1, 3)
    background = np.median(border, 0)
    if (np.abs(border - background).max(-1) <= DIFFERENCE).mean() < FLAT:
        return None
    figures = np.abs(frames - background).max(-1) > DIFFERENCE
    if not figures.any():
        return None
    return Silhouettes(frames, figures, float(frames[figures].mean()))


def iou(masks: np.ndarray, figures: np.ndarray) -> float:
    """Intersection over union of two boolean arrays; 0 if both are empty."""
    union = (masks | figures).sum()
    return float((masks & figures).sum() / union) if union else 0.0


def group_of(brightness: float) -> str:
    """One of GROUPS."""
    return GROUPS[int(brightness >= DARK) + int(brightness > PALE)]


def clips_of(split: Split, count: int) -> list[Silhouettes]:
    """The split's clips with a flat background, `count` frames of each, evenly spaced."""
    found = []
    for number in range(len(split.clips)):
        indices = np.linspace(0, split.clips[number].count - 1, count).round().astype(int)
        frames = np.stack([split.frame(number, int(index)) for index in indices])
        if (clip := silhouettes(frames.astype(np.float32) / 255)) is not None:
            found.append(clip)
    return found


def compare(run: LoadedRun, clips: Sequence[Silhouettes], thresholds: Sequence[float]) -> np.ndarray:
    """The IoU (clips, thresholds) of m's masks and the silhouettes, at the masks' size."""
    system: Any = run.system

    @jax.jit
    def at_mask_size(frames: jax.Array, figures: jax.Array) -> tuple[jax.Array, jax.Array]:
        masks = system.pose(run.variables, bilinear(frames, system.frame_size))
        return masks, bilinear(figures[..., None].astype(jnp.float32), system.mask_size)

    found = []
    for clip in tqdm(clips, unit="clip"):
        masks, figures = (np.asarray(each) for each in at_mask_size(clip.frames, clip.figures))
        found.append([iou(masks > threshold, figures > 0.5) for threshold in thresholds])
    return np.array(found)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("run", type=Path, nargs="+", help="workdirs of Perturbed Masks, or puppets")
    flags.add_argument("--data", type=Path, required=True, help="folder of shards with a validation split")
    flags.add_argument("--thresholds", type=float, nargs="+", default=[0.3, 0.5])
    flags.add_argument("--frames", type=int, default=8, help="frames of each clip")
    args = flags.parse_args(argv)
    clips = clips_of(open_split(args.data, "validation"), args.frames)
    if not clips:
        raise UserError(f"no validation clip of {args.data} has a flat background, so there are no silhouettes")
    groups = np.array([group_of(clip.brightness) for clip in clips])
    shown = [name for name in GROUPS if name in groups]
    titles = [f"{name}, {(groups == name).sum()} clips" for name in shown]
    print(f"| m | threshold | {' | '.join(titles)} |\n| --- | --- |{' --- |' * len(shown)}")
    for path in args.run:
        run = load_run(path)
        if run.system.mask_output is None:
            raise UserError(f"{path} is a run of {run.system.name}, which has no masks")
        found = compare(run, clips, args.thresholds)
        for threshold, values in zip(args.thresholds, found.T, strict=True):
            means = " | ".join(f"{values[groups == name].mean():.2f}" for name in shown)
            print(f"| {path.name}, step {run.step} | {threshold:g} | {means} |", flush=True)


if __name__ == "__main__":
    run_main(main)
