"""What must a landmark or identity network be able to do?

A back-end of your own is any class with these attributes and methods and no arguments; name it
`module:Class` wherever a back-end's name is asked for.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import numpy as np

Subject = Literal["body", "face"]


class Points(NamedTuple):
    """Keypoints of N frames."""

    where: np.ndarray
    """(N, K, 2) float32: x to the right and y down in pixels of the frame, from its upper left
    corner; of no meaning where not found.
    """
    found: np.ndarray
    """(N, K) bool."""


class Embedded(NamedTuple):
    """Embeddings of N frames."""

    vectors: np.ndarray
    """(N, D) float32; zeros where nothing was found."""
    found: np.ndarray
    """(N,) bool."""


class Backend(Protocol):
    """What every network says of itself."""

    name: str
    subject: Subject
    licence: str


class PointsBackend(Backend, Protocol):
    """A network that finds keypoints."""

    def points(self, frames: np.ndarray) -> Points:
        """Keypoints of (N, H, W, 3) uint8 RGB frames; one subject a frame, the most certain."""
        ...


class EmbeddingBackend(Backend, Protocol):
    """A network that embeds a subject's look."""

    def embed(self, frames: np.ndarray) -> Embedded:
        """Embeddings of (N, H, W, 3) uint8 RGB frames."""
        ...


def to_bytes(frames: np.ndarray) -> np.ndarray:
    """RGB floats in [0, 1] to uint8, rounded; uint8 stays as it is."""
    if frames.dtype == np.uint8:
        return frames
    return np.rint(np.clip(frames, 0, 1) * 255).astype(np.uint8)
