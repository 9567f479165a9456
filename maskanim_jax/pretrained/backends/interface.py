"""Which interface must a landmark or identity network have?

Your own back-end is any class with these attributes and methods whose constructor has no arguments.
Give it as `module:Class` in place of a back-end's name.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np

Subject = Literal["body", "face"]


class Points(NamedTuple):
    """Keypoints of N frames."""

    where: np.ndarray
    """(N, K, 2) float32: x to the right and y down in pixels, from the frame's upper left corner;
    undefined where not found.
    """
    found: np.ndarray
    """(N, K) bool."""


class Embedded(NamedTuple):
    """Embeddings of N frames."""

    vectors: np.ndarray
    """(N, D) float32; zeros if nothing was found."""
    found: np.ndarray
    """(N,) bool."""


class Backend(Protocol):
    """The attributes of every network."""

    name: str
    subject: Subject
    licence: str


class PointsBackend(Backend, Protocol):
    """A network that finds keypoints."""

    def points(self, frames: np.ndarray) -> Points:
        """Keypoints of (N, H, W, 3) uint8 RGB frames: of one subject per frame, the
        one with the highest score.
        """
        ...


class EmbeddingBackend(Backend, Protocol):
    """A network that embeds a subject's appearance."""

    def embed(self, frames: np.ndarray) -> Embedded:
        """Embeddings of (N, H, W, 3) uint8 RGB frames."""
        ...


def to_bytes(frames: np.ndarray) -> np.ndarray:
    """RGB floats in [0, 1] to uint8, rounded; uint8 is unchanged."""
    if frames.dtype == np.uint8:
        return frames
    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
