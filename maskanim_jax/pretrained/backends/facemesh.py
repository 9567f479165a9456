"""How does FaceMesh find 468 points of a face? With MediaPipe's two networks.

This follows MediaPipe's graph for single pictures. The short-range detector gives a box and the
eyes. A square of 1.5 times the box's longer side, turned so that the eyes are level, is the input
of the landmark network. Its score decides whether there is a face.
"""

from __future__ import annotations

import math

import numpy as np

from maskanim_jax.pretrained.backends.interface import Subject
from maskanim_jax.pretrained.backends.regions import Region, back, cut
from maskanim_jax.pretrained.backends.two_stage import LEAST, TwoStage
from maskanim_jax.pretrained.registry import NETWORKS

KEYPOINTS = 468

_GROW = 1.5


class FaceMesh(TwoStage):
    """`points`: 468 face points; either all are found or none."""

    name = "facemesh"
    subject: Subject = "face"
    licence = NETWORKS["facemesh"].licence
    strides = (8, 16, 16, 16)

    def one(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        region, size = self._region(frame), self._landmarks.size
        values, logit = self._landmarks(cut(frame, region, size) / 255)
        there = 1 / (1 + math.exp(-float(np.clip(logit.ravel()[0], -50, 50)))) >= LEAST
        where = back(values.reshape(KEYPOINTS, 3)[:, :2] / size, region).astype(np.float32)
        return where, np.full(KEYPOINTS, there)

    def _region(self, frame: np.ndarray) -> Region:
        everything, found = self.detect(frame)
        if found is None:
            return everything
        (x0, y0), (x1, y1) = back(found.points[:2], everything)  # the eyes
        ((x, y),) = back(found.box[None, :2], everything)
        side = _GROW * float(found.box[2:].max()) * everything.side
        return Region(x, y, max(1.0, side), -math.atan2(y0 - y1, x1 - x0))
