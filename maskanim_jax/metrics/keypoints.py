"""What are AKD and MKR? Distances and detection rates of face or body landmarks.

AKD, average keypoint distance: the mean Euclidean distance, in pixels of the given frames (256 x
256 in the papers), of keypoints detected in both frames. MKR, missing keypoint rate: the share of
keypoints of the true frame that are not detected in the generated frame. Both are pooled: every
keypoint of every frame has the same weight, per clip and overall. A generated frame without any
face or body counts only in MKR.

The papers used OpenPose (Tai-Chi) and FAN (VoxCeleb), which no package provides. The key names the
network that is used instead; only values of the same network are comparable.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from maskanim_jax.metrics.interface import Figures, Mean, named
from maskanim_jax.pretrained.backends.interface import Points, PointsBackend, to_bytes


class Counts(NamedTuple):
    """Sums over the keypoints of one or more frames; they can be added."""

    distance: float  # pixels, summed over the keypoints detected in both
    both: int
    missing: int  # detected in the true frame only
    true: int  # detected in the true frame


def compare(generated: Points, true: Points) -> Counts:
    """The sums for frames with keypoints `generated` (N, K) and `true`
    (N, K), in the same order.
    """
    both = generated.found & true.found
    distance = np.linalg.norm(generated.where.astype(np.float64) - true.where.astype(np.float64), axis=-1)
    return Counts(
        float(distance[both].sum()), int(both.sum()), int((true.found & ~generated.found).sum()), int(true.found.sum())
    )


class Keypoints:
    """AKD and MKR by one back-end, under the keys `akd[NAME]` and `mkr[NAME]`."""

    def __init__(self, backend: PointsBackend) -> None:
        self.backend = backend
        self._akd, self._mkr = Mean(), Mean()
        by = f"by {backend.name}, a stand-in for the papers' network"
        self.descriptions = {
            f"akd[{backend.name}]": f"mean distance in pixels of keypoints detected in both frames, {by}; lower is better",
            f"mkr[{backend.name}]": f"share of the true frame's keypoints that are missing, {by}; lower is better",
        }

    def add(self, generated: np.ndarray, true: np.ndarray) -> None:
        self.add_points(self.backend.points(to_bytes(generated)), self.backend.points(to_bytes(true)))

    def add_points(self, generated: Points, true: Points) -> None:
        """Like `add`, for keypoints that were already computed."""
        counts = compare(generated, true)
        self._akd.add(counts.distance, counts.both)
        self._mkr.add(counts.missing, counts.true)

    def finish_clip(self) -> Figures:
        return self._named(self._akd.finish_clip(), self._mkr.finish_clip())

    def overall(self) -> Figures:
        return self._named(self._akd.overall(), self._mkr.overall())

    def _named(self, akd: float | None, mkr: float | None) -> Figures:
        return named({f"akd[{self.backend.name}]": akd, f"mkr[{self.backend.name}]": mkr})
