"""How does MoveNet (Thunder, single pose) find the 17 COCO points of a body, each with a score?"""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np

from maskanim_jax.pretrained.backends.interface import Points, Subject
from maskanim_jax.pretrained.backends.regions import back, cut, whole
from maskanim_jax.pretrained.backends.tfjs_graph import Graph
from maskanim_jax.pretrained.install import find
from maskanim_jax.pretrained.registry import NETWORKS

SIZE = 256
KEYPOINTS = 17
LEAST = 0.3
"""The lowest score of a detected point."""


class MoveNet:
    """`points`: 17 body points; the whole frame, padded to a square, is resized to 256 x 256."""

    name = "movenet-thunder"
    subject: Subject = "body"
    licence = NETWORKS["movenet-thunder"].licence

    def __init__(self, cache: Path | None = None) -> None:
        topology, weights = find(self.name, cache)
        graph = Graph(topology, weights)
        self._weights = jax.device_put(graph.weights)
        self._compiled = jax.jit(graph)

    def points(self, frames: np.ndarray) -> Points:
        where = np.zeros((len(frames), KEYPOINTS, 2), np.float32)
        found = np.zeros((len(frames), KEYPOINTS), bool)
        for number, frame in enumerate(frames):
            region = whole(*frame.shape[:2])
            picture = np.rint(cut(frame, region, SIZE)).astype(np.int32)[None]
            values = np.asarray(self._compiled(self._weights, picture)).reshape(KEYPOINTS, 3)  # y, x, score
            where[number] = back(values[:, 1::-1], region)
            found[number] = values[:, 2] >= LEAST
        return Points(where, found)
