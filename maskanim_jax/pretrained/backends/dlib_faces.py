"""How does dlib describe a face? With 68 points, and a 128-dimensional identity embedding.

dlib's frontal face detector searches the frame and, if it finds none, the frame at twice the size.
The face with the highest score is used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.pretrained.backends.interface import Embedded, Points, Subject
from maskanim_jax.pretrained.install import find
from maskanim_jax.pretrained.registry import NETWORKS
from maskanim_jax.video.faces import FaceFinder

KEYPOINTS = 68
DIMENSIONS = 128


class Dlib68:
    """`points`: the 68 points of iBUG 300-W (jaw, brows, nose, eyes, mouth);
    either all are found or none.
    """

    name = "dlib-68"
    subject: Subject = "face"
    licence = NETWORKS["dlib-68"].licence

    def __init__(self, cache: Path | None = None) -> None:
        (path,) = find(self.name, cache)
        dlib = _dlib(self.name)
        self._finder, self._predictor = FaceFinder(), dlib.shape_predictor(str(path))

    def points(self, frames: np.ndarray) -> Points:
        where, found = np.zeros((len(frames), KEYPOINTS, 2), np.float32), np.zeros((len(frames), KEYPOINTS), bool)
        for number, frame in enumerate(frames):
            if (face := _face(self._finder, frame)) is not None:
                shape = self._predictor(np.ascontiguousarray(frame), face)
                where[number] = [(point.x + 0.5, point.y + 0.5) for point in shape.parts()]
                found[number] = True
        return Points(where, found)


class DlibFace:
    """`embed`: dlib's face recognition network.

    The distance of two pictures of one person is typically below 0.6.
    """

    name = "dlib-face"
    subject: Subject = "face"
    licence = NETWORKS["dlib-face"].licence

    def __init__(self, cache: Path | None = None) -> None:
        points, network = find(self.name, cache)
        dlib = _dlib(self.name)
        self._finder, self._predictor = FaceFinder(), dlib.shape_predictor(str(points))
        self._network = dlib.face_recognition_model_v1(str(network))

    def embed(self, frames: np.ndarray) -> Embedded:
        vectors, found = np.zeros((len(frames), DIMENSIONS), np.float32), np.zeros(len(frames), bool)
        for number, frame in enumerate(frames):
            frame = np.ascontiguousarray(frame)
            if (face := _face(self._finder, frame)) is not None:
                vectors[number] = self._network.compute_face_descriptor(frame, self._predictor(frame, face))
                found[number] = True
        return Embedded(vectors, found)


def _dlib(name: str) -> Any:
    try:
        import dlib
    except ImportError as error:
        raise UserError(
            f"{name} needs dlib: install the extra `metrics` (pip install 'maskanim_jax[metrics]')"
        ) from error
    return dlib


def _face(finder: FaceFinder, frame: np.ndarray) -> Any:
    """The face with the highest score as dlib's rectangle, or None."""
    for doublings in (0, 1):
        if faces := finder.faces(frame, doublings):
            return max(faces, key=lambda face: face[0])[1]
    return None
