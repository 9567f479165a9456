"""How well does a run reconstruct puppets of an unseen world? They are drawn on the fly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from input_pipeline.puppets.dataset import Clip, clips, identity_of
from input_pipeline.puppets.draw import render
from input_pipeline.puppets.pose import FRAME_RATE, Pose, trajectory
from input_pipeline.shards import ClipInfo
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.cross_identity_metrics import UNIT_SIDE
from maskanim_jax.metrics.bootstrap import interval

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from maskanim_jax.checkpoints.run import LoadedRun

IDENTITIES = 20
"""The number of puppets in a world, with one clip each."""

SHOWN = ("l1", "iou", "joint_error", "leak", "shape_leak")
"""Metrics in the console's table with intervals."""


def world_clips(puppets: ConfigDict, world: int) -> list[Clip]:
    """The clips of the world, drawn with `config.data.puppets`.

    Raises UserError for the training's world.
    """
    if world == puppets.seed:
        raise UserError(f"--world={world} is the world that the run was trained on: give another number")
    return clips("test", IDENTITIES, 1, puppets.frames, world, puppets.version)


class DrawnSplit:
    """Clips with the interface of a split of shards, drawn on demand."""

    def __init__(self, drawn: Sequence[Clip], size: int) -> None:
        self.size = size
        self.clips = [ClipInfo(clip.name, clip.name.split("#")[0], 0, clip.frames, FRAME_RATE) for clip in drawn]
        self._drawn = drawn
        self._poses: dict[int, list[Pose]] = {}

    def frame(self, clip_number: int, index: int) -> np.ndarray:
        """Frame `index` of a clip, (S, S, 3) uint8 RGB."""
        clip = self._drawn[clip_number]
        if clip_number not in self._poses:
            self._poses = {clip_number: trajectory(clip.seed, clip.pose, clip.frames)}
        return render(identity_of(clip), self._poses[clip_number][index], self.size).frame


def world_reconstruction(run: LoadedRun, world: int, progress: bool = False) -> dict[str, Any]:
    """The content of `reconstruction.json` for the world's puppets; `l1_interval` and
    `ratio_interval` are intervals over clips.

    Raises UserError for the training's world.
    """
    from maskanim_jax.evaluation.reconstruction import reconstruct

    drawn = DrawnSplit(world_clips(run.config.data.puppets, world), run.system.frame_size)
    found = reconstruct(run.system, run.variables, drawn, progress=progress)
    l1, repeat, frames = (np.array([row[key] for row in found["clips"]]) for key in ("l1", "l1_copy_source", "frames"))
    found["l1_interval"] = list(interval(list(l1), list(frames))[1:])
    # the ratio of two sums is the mean of the clips' ratios, weighted by the denominator
    found["ratio_interval"] = list(interval(list(l1 / repeat), list(repeat * frames))[1:])
    return found


def table(figures: Mapping[str, Any]) -> str:
    """The results for a world, for the console: means with their intervals."""
    width = max(len(row["variant"]) for row in figures["rows"])
    lines = [f"{'start':7} {'variant':{width}} " + " ".join(f"{name:>24}" for name in SHOWN)]
    for row in figures["rows"]:
        cells = [
            f"{row[name]:.3f} [{row['intervals'][name][0]:.3f}, {row['intervals'][name][1]:.3f}]"
            if name in row
            else "-"
            for name in SHOWN
        ]
        lines.append(f"{row['start']:7} {row['variant']:{width}} " + " ".join(f"{cell:>24}" for cell in cells))
    made = figures["reconstruction"]
    (low, high), (least, most) = made["l1_interval"], made["ratio_interval"]
    lines.append(
        f"reconstruction of {len(made['clips'])} clips: L1 {made['l1']:.4f} [{low:.4f}, {high:.4f}], copying the source "
        f"{made['l1_copy_source']:.4f}, ratio {made['ratio']:.3f} [{least:.3f}, {most:.3f}]"
    )
    return "\n".join([*lines, f"joint_error is in pixels of a {UNIT_SIDE}-pixel frame; 95 % intervals in brackets"])
