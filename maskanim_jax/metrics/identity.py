"""What are AED and CSIM? Distances between identity embeddings of the generated and the true frame.

AED, average Euclidean distance: the mean distance of the two embeddings. CSIM, cosine similarity:
the mean cosine of the angle between them, for face networks only. Both are means over the frames in
which the network detected a face or body in both. `missing` is the share of faces of the true
frames that are not detected in the generated frames.

The papers used a person re-identification network and OpenFace (AED) and ArcFace (CSIM), which no
package provides. The key names the network that is used instead; only values of the same network
are comparable.
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
    """Cosines of the angles between embeddings, (M,) float64 in [-1, 1], of the M frames in which
    both were found.
    """
    both = generated.found & true.found
    one, other = generated.vectors[both].astype(np.float64), true.vectors[both].astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return (one * other).sum(-1) / np.maximum(lengths, 1e-12)


class Identity:
    """AED, CSIM (for faces) and the share of missing faces by one back-end: `aed[NAME]`,
    `csim[NAME]`, `missing[NAME]`.
    """

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
        """Like `add`, for embeddings that were already computed."""
        apart, alike = distances(generated, true), cosines(generated, true)
        self._aed.add(float(apart.sum()), len(apart))
        self._csim.add(float(alike.sum()), len(alike))
        self._missing.add(int((true.found & ~generated.found).sum()), int(true.found.sum()))

    def finish_clip(self) -> Figures:
        return self._named(self._aed.finish_clip(), self._csim.finish_clip(), self._missing.finish_clip())

    def overall(self) -> Figures:
        return self._named(self._aed.overall(), self._csim.overall(), self._missing.overall())

    def _named(self, *values: float | None) -> Figures:
        return named(dict(zip(self.descriptions, values, strict=False)))  # bodies: AED only
