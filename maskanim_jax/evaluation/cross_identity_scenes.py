"""Which pairs of puppets does the cross-identity evaluation animate, and
what is their ground truth?
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import cross_identity_metrics as measures
from maskanim_jax.evaluation.cross_identity_metrics import GroundTruth

if TYPE_CHECKING:
    from input_pipeline.puppets.dataset import Clip

STARTS = ("own", "driver")
"""The source frame's pose: the source's own first pose, or the driver's, as
relative motion assumes.
"""
DISTRACTORS = 2
"""The number of unrelated identities that leakage is compared with."""


class Scene(NamedTuple):
    """One pair: its inputs and its ground truth."""

    source: Clip
    driving: Clip
    numbers: list[int]  # of the driver's frames
    drivings: np.ndarray  # (T, S, S, 3) uint8
    truths: list[GroundTruth]
    finders: list[measures.JointFinder]
    driver_silhouettes: np.ndarray  # (T, S, S) bool
    driver_joints: np.ndarray  # (T, J, 2)
    distractors: list[np.ndarray]  # each (T, S, S, 3) float32: an unrelated identity in the driver's poses
    starts: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # frame (S, S, 3) uint8, silhouette, joints


def choose_pairs(clips: Sequence[Clip], count: int, seed: int) -> list[tuple[int, int]]:
    """Draws `count` distinct pairs (source, driver) of clip indices with different identities.

    All clips are sources equally often. Deterministic for the same clips, count and seed. Raises
    UserError if there are fewer than two identities.
    """
    number = len(clips)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 17]))
    order = rng.permutation(number)
    found: list[tuple[int, int]] = []
    for shift in range(1, number):
        for at in range(number):
            source, driving = int(order[at]), int(order[(at + shift) % number])
            if clips[source].identity != clips[driving].identity:
                found.append((source, driving))
                if len(found) == count:
                    return found
    if not found:
        raise UserError(
            "the run's data has no two held-out puppets: set config.data.puppets.test_identities to 2 or more"
        )
    return found


def draw_scene(clips: Sequence[Clip], pair: tuple[int, int], frames: int, size: int) -> Scene:
    """Draws a pair with `frames` evenly spaced frames of the driver's clip, S = `size`."""
    from input_pipeline.puppets.dataset import identity_of
    from input_pipeline.puppets.draw import background, render
    from input_pipeline.puppets.pose import trajectory

    source, driving = (clips[n] for n in pair)
    poses = trajectory(driving.seed, driving.pose, driving.frames)
    numbers = sorted({int(n) for n in np.linspace(0, driving.frames - 1, frames).round()})
    unrelated = [clip for clip in clips if clip.identity not in (source.identity, driving.identity)]
    own, other, *rest = (identity_of(clip) for clip in (source, driving, *unrelated[:DISTRACTORS]))
    empty = background(own, size).astype(np.float32) / 255
    truths, drivings, silhouettes, joints = [], [], [], []
    for number in numbers:
        right, theirs = render(own, poses[number], size), render(other, poses[number], size)
        truths.append(GroundTruth(right.frame.astype(np.float32) / 255, empty, right.silhouette > 127, right.joints))
        drivings.append(theirs.frame)
        silhouettes.append(theirs.silhouette > 127)
        joints.append(theirs.joints)
    distractors = [
        np.stack([render(one, poses[number], size).frame for number in numbers]).astype(np.float32) / 255
        for one in rest
    ]
    first = {"own": trajectory(source.seed, source.pose, 1)[0], "driver": poses[0]}
    starts = {}
    for start, pose in first.items():
        drawn = render(own, pose, size)
        starts[start] = (drawn.frame, drawn.silhouette > 127, drawn.joints)
    return Scene(
        source,
        driving,
        numbers,
        np.stack(drivings),
        truths,
        [measures.JointFinder(truth) for truth in truths],
        np.stack(silhouettes),
        np.stack(joints),
        distractors,
        starts,
    )
