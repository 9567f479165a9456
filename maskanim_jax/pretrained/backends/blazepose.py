"""How does BlazePose (full) find 33 points of a body? With MediaPipe's two networks.

This follows MediaPipe's graph for single pictures. The detector gives the centre of the hips
and a point straight above. The square around them, enlarged by 1.25 and turned upright, is the
input of the landmark network. Its points are moved towards the peaks of its heat maps. If no
body is detected, the whole frame is the region, and the landmark network's score decides.
Nothing is smoothed over time.
"""

from __future__ import annotations

import math

import numpy as np

from maskanim_jax.pretrained.backends.interface import Subject
from maskanim_jax.pretrained.backends.regions import Region, back, cut
from maskanim_jax.pretrained.backends.two_stage import LEAST, TwoStage
from maskanim_jax.pretrained.registry import NETWORKS

KEYPOINTS = 33

_GROW = 1.25
_REACH = 3  # cells of the heat map around a point that can move it
_PEAK = 0.5  # the smallest peak among them that moves it


class BlazePose(TwoStage):
    """`points`: 33 body points; a point counts as found if the body's score and its own
    visibility are at least 0.5.
    """

    name = "blazepose-full"
    subject: Subject = "body"
    licence = NETWORKS["blazepose-full"].licence
    strides = (8, 16, 32, 32, 32)

    def one(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        region = self._region(frame)
        size = self._landmarks.size
        values, score, _, heat, *_ = self._landmarks(cut(frame, region, size) / 255)
        points = values.reshape(-1, 5)[:KEYPOINTS]  # x, y, z, visibility, presence; the rest are auxiliary points
        visible = 1 / (1 + np.exp(-np.clip(points[:, 3], -50, 50)))
        where = back(_drawn(points[:, :2] / size, heat), region).astype(np.float32)
        return where, (visible >= LEAST) & (float(score[0]) >= LEAST)

    def _region(self, frame: np.ndarray) -> Region:
        everything, found = self.detect(frame)
        if found is None:
            return everything
        (x0, y0), (x1, y1) = back(found.points[:2], everything)
        angle = math.pi / 2 - math.atan2(y0 - y1, x1 - x0)
        return Region(x0, y0, max(1.0, 2 * _GROW * math.hypot(x1 - x0, y1 - y0)), angle)


def _drawn(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Points (K, 2) in units of the region, moved to the centre of mass of the heat maps
    (L, L, K or more) around them.
    """
    moved, (height, width) = points.copy(), heat.shape[:2]
    for number, (x, y) in enumerate(points):
        column, row = int(x * width), int(y * height)
        if not (0 <= column < width and 0 <= row < height):
            continue
        top, left = max(0, row - _REACH), max(0, column - _REACH)
        logits = heat[top : row + _REACH + 1, left : column + _REACH + 1, number].astype(np.float64)
        likely = 1 / (1 + np.exp(-np.clip(logits, -50, 50)))
        if likely.max() >= _PEAK:
            rows, columns = np.mgrid[top : top + likely.shape[0], left : left + likely.shape[1]]
            moved[number] = np.array([(columns * likely).sum() / width, (rows * likely).sum() / height]) / likely.sum()
    return moved
