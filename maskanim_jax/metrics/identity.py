"""What are AED and CSIM? Whether a recognition network takes the generated frame for the same person as the true one.

AED, average Euclidean distance: the mean over frames of the length of the difference of the two embeddings, in the space of the network.
CSIM, cosine similarity: the mean over frames of the cosine of the angle between the two embeddings; of face networks only. Frames count in which the
network found something to embed in both; how many of those that have a face in the true frame lack one in the generated frame is the key `missing`.

The papers' figures are by a person re-identification network and OpenFace (AED) and ArcFace (CSIM), which are in no package: the key names the
network that was used instead, and only figures of one network can be compared with each other.
"""

from __future__ import annotations

import numpy as np

from maskanim_jax.metrics.interface import Figures, Mean, named
from maskanim_jax.pretrained.backends.interface import Embedded, EmbeddingBackend, to_bytes


def distances(generated: Embedded, true: Embedded) -> np.ndarray:
    """Euclidean distances, (M,) float64, of the M frames in which both were found."""
    both = generated.found & true.found
    return np.linalg.norm(generated.vectors[both].astype(np.float64) - true.vectors[both].astype(np.float64), axis=-1)


def cosines(generated: Embedded, true: Embedded) -> np.ndarray:
    """Cosines of the angles between embeddings, (M,) float64 in [-1, 1], of the M frames in which both were found."""
    both = generated.found & true.found
    one, other = generated.vectors[both].astype(np.float64), true.vectors[both].astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / np.maximum(lengths, 1e-12)


class Identity:
    """AED, CSIM (of faces) and the share of missing faces by one back-end: `aed[NAME]`, `csim[NAME]`, `missing[NAME]`."""

    def __init__(self, backend: EmbeddingBackend) -> None:
        self.backend = backend
        self._aed, self._csim, self._missing = Mean(), Mean(), Mean()
        name, by = backend.name, f"by {backend.name}, a stand-in for the papers' network"
        self.descriptions = {f"aed[{name}]": f"mean distance of embeddings {by}; lower is better"}
        if backend.subject == "face":
            self.descriptions[f"csim[{name}]"] = f"mean cosine of embeddings {by}; higher is better"
            self.descriptions[f"missing[{name}]"] = (
                f"share of the true frame's faces that are missing, {by}; lower is better"
            )

    def add(self, generated: np.ndarray, true: np.ndarray) -> None:
        self.add_embedded(self.backend.embed(to_bytes(generated)), self.backend.embed(to_bytes(true)))

    def add_embedded(self, generated: Embedded, true: Embedded) -> None:
        """Like `add`, for embeddings that are known already."""
        apart, alike = distances(generated, true), cosines(generated, true)
        self._aed.add(float(apart.sum()), len(apart))
        self._csim.add(float(alike.sum()), len(alike))
        self._missing.add(int((true.found & ~generated.found).sum()), int(true.found.sum()))

    def finish_clip(self) -> Figures:
        return self._named(self._aed.finish_clip(), self._csim.finish_clip(), self._missing.finish_clip())

    def overall(self) -> Figures:
        return self._named(self._aed.overall(), self._csim.overall(), self._missing.overall())

    def _named(self, *values: float | None) -> Figures:
        return named(dict(zip(self.descriptions, values, strict=False)))  # bodies: AED alone
