"""How are faces detected? With dlib's frontal face detector, which needs no model file; dlib is
optional.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np


def is_installed() -> bool:
    """Whether dlib is installed."""
    return find_spec("dlib") is not None


class FaceFinder:
    """dlib's detector; raises ImportError without dlib."""

    def __init__(self) -> None:
        import dlib

        self._detector = dlib.get_frontal_face_detector()

    def faces(self, frame: np.ndarray, doublings: int = 0) -> list[tuple[float, Any]]:
        """(score, dlib's rectangle) of each face in a (H, W, 3) uint8 frame, enlarged to twice its
        size `doublings` times.
        """
        found, scores, _ = self._detector.run(np.ascontiguousarray(frame), doublings, 0.0)
        return list(zip(scores, found, strict=True))
