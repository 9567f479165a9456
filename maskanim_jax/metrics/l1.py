"""What is L1? The mean absolute difference of colours."""

from __future__ import annotations

import numpy as np

from maskanim_jax.metrics.interface import PerFrame


class L1(PerFrame):
    """Mean of |generated - true| over pixels, RGB channels in [0, 1] and frames, as in Table 1; 0
    is best.
    """

    def __init__(self) -> None:
        super().__init__("l1", "mean absolute difference of RGB in [0, 1]; lower is better")

    def values(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        difference = np.abs(np.asarray(generated, np.float32) - np.asarray(true, np.float32))
        return difference.mean((1, 2, 3), dtype=np.float64)
