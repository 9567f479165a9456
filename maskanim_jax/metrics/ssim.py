"""What is SSIM? The structural similarity index (Wang et al. 2004)."""

from __future__ import annotations

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.metrics.interface import PerFrame

SMALLEST = 11
"""Side of the window in pixels, which is also the smallest frame size."""


class Ssim(PerFrame):
    """scikit-image's SSIM with the settings of Wang et al., mean over pixels, the three channels of
    RGB in [0, 1], then frames.

    Gaussian window of sigma 1.5, cut at 11 x 11; K1 = 0.01, K2 = 0.03; population (not sample)
    covariances; a border of 5 pixels, where the window does not fit, is excluded from the
    mean. From -1 to 1, 1 for equal frames. No conversion to grey. Raises UserError when
    scikit-image is missing.
    """

    def __init__(self) -> None:
        super().__init__(
            "ssim", "structural similarity, Gaussian window 11 x 11, mean of RGB channels; higher is better"
        )
        try:
            from skimage.metrics import structural_similarity
        except ImportError as error:
            raise UserError("SSIM needs scikit-image: run `pip install scikit-image`") from error
        self._similarity = structural_similarity

    def values(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        return np.array([self._one(each, wanted) for each, wanted in zip(generated, true, strict=True)])

    def _one(self, generated: np.ndarray, true: np.ndarray) -> float:
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        pair = np.asarray(generated, np.float64), np.asarray(true, np.float64)
        return float(self._similarity(*pair, data_range=1.0, channel_axis=-1, **options))
