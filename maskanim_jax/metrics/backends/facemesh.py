"""What does FaceMesh see? 468 points of a face, by MediaPipe's two networks.

As in MediaPipe's graph for single pictures: the short-range detector gives a box and the eyes; a square 1.5 times the box's
longer side, turned so that the eyes are level, goes to the landmark network, whose score says whether a face is there.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from maskanim_jax.metrics.backends.interface import Points, Subject
from maskanim_jax.metrics.backends.regions import Region, anchors, back, best, cut, whole
from maskanim_jax.metrics.backends.tflite import Model
from maskanim_jax.metrics.install import find
from maskanim_jax.metrics.networks import NETWORKS

KEYPOINTS = 468
LEAST = 0.5
"""Score from which on a face is there; all of its points are found then."""

_GROW = 1.5
_STRIDES = (8, 16, 16, 16)


class FaceMesh:
    """`points`: 468 face points, all of them found or none."""

    name = "facemesh"
    subject: Subject = "face"
    licence = NETWORKS["facemesh"].licence

    def __init__(self, cache: Path | None = None) -> None:
        detector, landmarks = find(self.name, cache)
        self._detector, self._landmarks = Model(detector), Model(landmarks)
        self._anchors = anchors(self._detector.size, _STRIDES)

    def points(self, frames: np.ndarray) -> Points:
        found = [self._one(frame) for frame in frames]
        return Points(np.stack([where for where, _ in found]), np.stack([seen for _, seen in found]))

    def _one(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        region, size = self._region(frame), self._landmarks.size
        values, logit = self._landmarks(cut(frame, region, size) / 255)
        there = 1 / (1 + math.exp(-float(np.clip(logit.ravel()[0], -50, 50)))) >= LEAST
        where = back(values.reshape(KEYPOINTS, 3)[:, :2] / size, region).astype(np.float32)
        return where, np.full(KEYPOINTS, there)

    def _region(self, frame: np.ndarray) -> Region:
        everything, size = whole(*frame.shape[:2]), self._detector.size
        raw, logits = self._detector(cut(frame, everything, size) / 127.5 - 1)
        found = best(raw, logits[:, 0], self._anchors, size, LEAST)
        if found is None:
            return everything
        (x0, y0), (x1, y1) = back(found.points[:2], everything)  # the eyes
        ((x, y),) = back(found.box[None, :2], everything)
        side = _GROW * float(found.box[2:].max()) * everything.side
        return Region(x, y, max(1.0, side), -math.atan2(y0 - y1, x1 - x0))
