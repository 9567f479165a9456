"""How does a puppet move?

Poses are joint angles and a position, smooth in time; any identity can take them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

FRAME_RATE = Fraction(12, 1)
"""Frames per second of every trajectory."""
_POSE_STREAM = 2
USUAL_LEG_BONE = 0.165  # thigh or shin of an average identity, so that feet stay near the ground for any identity


@dataclass(frozen=True)
class Pose:
    """One moment. Angles are in radians. The puppet faces the viewer, so its left is on
    the right of the picture.

    A shoulder angle of 0 hangs down along the torso, pi / 2 points sideways, pi up. A hip angle of
    0 stands; positive angles spread outwards. Elbow and knee angles are relative to the limb above,
    positive further outwards. `lean` and `neck` are clockwise.
    """

    root: tuple[float, float]  # the pelvis, x to the right and y down, in [0, 1]
    lean: float
    neck: float
    left_shoulder: float
    right_shoulder: float
    left_elbow: float
    right_elbow: float
    left_hip: float
    right_hip: float
    left_knee: float
    right_knee: float


def trajectory(seed: int, number: int, frames: int) -> list[Pose]:
    """The first `frames` poses of trajectory `number` (from 0) of the world `seed`; a
    larger `frames` only appends.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _POSE_STREAM, number]))
    seconds = np.arange(frames) / float(FRAME_RATE)

    def wave(low: float, high: float, slowest: float = 0.2, fastest: float = 0.6) -> np.ndarray:
        """(frames,) float64 in [low, high]: a sum of three sinusoids with random
        frequencies (in Hz) and phases.
        """
        total = np.zeros(frames)
        for weight in (1.0, 0.6, 0.3):
            frequency = rng.uniform(slowest, fastest)
            total += weight * np.sin(2 * math.pi * (frequency * seconds + rng.random()))
        return (low + high) / 2 + (high - low) / 2 * np.tanh(1.15 * total)

    squat = wave(0.0, 1.0) ** 2
    angles = {
        "lean": wave(-0.38, 0.38),
        "neck": wave(-0.4, 0.4),
        "left_shoulder": wave(0.05, 3.0),
        "right_shoulder": wave(0.05, 3.0),
        "left_elbow": wave(-0.9, 1.2),
        "right_elbow": wave(-0.9, 1.2),
    }
    drop = np.zeros(frames)
    for side in ("left", "right"):
        hip = 0.08 + 0.6 * squat + wave(-0.08, 0.55)
        knee = -0.9 * hip - 0.4 * squat + wave(-0.3, 0.3)
        angles[f"{side}_hip"], angles[f"{side}_knee"] = hip, knee
        drop += USUAL_LEG_BONE * (np.cos(hip) + np.cos(hip + knee)) / 2
    root_x = 0.5 + wave(-0.12, 0.12, 0.15, 0.5)
    root_y = 0.92 - drop + wave(-0.04, 0.01)
    return [
        Pose(
            root=(float(root_x[t]), float(root_y[t])),
            **{name: float(values[t]) for name, values in angles.items()},
        )
        for t in range(frames)
    ]
