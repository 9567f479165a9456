"""What is PSNR? The peak signal-to-noise ratio in decibels."""

from __future__ import annotations

import numpy as np

from maskanim_jax.metrics.interface import PerFrame

LEAST_ERROR = 1e-10
"""Lower bound of the mean squared error: equal frames count as 100 dB, not as infinity."""


class Psnr(PerFrame):
    """10 log10(1 / MSE) dB, with the MSE over all pixels and channels of one frame, RGB in [0, 1];
    averaged over frames in dB.
    """

    def __init__(self) -> None:
        super().__init__("psnr", "peak signal to noise ratio in dB, range 1, mean over frames; higher is better")

    def values(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        difference = np.asarray(generated, np.float64) - np.asarray(true, np.float64)
        return -10 * np.log10(np.maximum((difference**2).mean((1, 2, 3)), LEAST_ERROR))
