"""What do MediaPipe's landmark networks share?

A detector finds a region, and a second network finds the points in it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskanim_jax.pretrained.backends.interface import Points
from maskanim_jax.pretrained.backends.regions import Detection, Region, anchors, best, cut, whole
from maskanim_jax.pretrained.backends.tflite import Model
from maskanim_jax.pretrained.install import find

LEAST = 0.5
"""The lowest score of a detected body or face."""


class TwoStage:
    """The base class of these back-ends.

    A subclass has a `name`, the detector's `strides`, and `one`, which finds
    the points of one frame.
    """

    name: str
    strides: tuple[int, ...]

    def __init__(self, cache: Path | None = None) -> None:
        detector, landmarks = find(self.name, cache)
        self._detector, self._landmarks = Model(detector), Model(landmarks)
        self._anchors = anchors(self._detector.size, self.strides)

    def one(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) uint8 to points (K, 2) float32 in pixels, and which were found (K,)."""
        raise NotImplementedError

    def points(self, frames: np.ndarray) -> Points:
        """The keypoints of (N, H, W, 3) uint8 frames."""
        found = [self.one(frame) for frame in frames]
        return Points(np.stack([where for where, _ in found]), np.stack([seen for _, seen in found]))

    def detect(self, frame: np.ndarray) -> tuple[Region, Detection | None]:
        """The square around the whole frame, and the detection in it, in units of the square."""
        everything, size = whole(*frame.shape[:2]), self._detector.size
        raw, logits = self._detector(cut(frame, everything, size) / 127.5 - 1)
        return everything, best(raw, logits[:, 0], self._anchors, size, LEAST)
