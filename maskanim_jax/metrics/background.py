"""Is the background preserved? L1 to the source outside the source's and the driver's subject.

Subjects are segmented from soft masks (panels 2 and 4 of the authors' videos: the masks of
Perturbed Masks, which may favour that method). A pixel belongs to the subject if its mask is above
Otsu's threshold or within `MARGIN` pixels of such a pixel. The background is all pixels that
belong to neither subject.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from maskanim_jax.metrics.interface import Figures, Mean, named

MARGIN = 12
"""Pixels by which a subject's mask is dilated (with a square structuring element)."""
KEY = "background_l1"


def background(*masks: np.ndarray) -> np.ndarray:
    """The background (H, W) bool of one frame from the masks (H, W) uint8 of its subjects."""
    result = np.ones(masks[0].shape, bool)
    for mask in masks:
        subject = Image.fromarray((mask > otsu(mask)).astype(np.uint8) * 255)
        result &= np.asarray(subject.filter(ImageFilter.MaxFilter(2 * MARGIN + 1))) == 0
    return result


def otsu(mask: np.ndarray) -> int:
    """Otsu's threshold of (H, W) uint8: minimises the variance within the classes "at most" and
    "above".
    """
    counts = np.bincount(mask.ravel(), minlength=256).astype(np.float64)
    below, sums = counts.cumsum(), (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums / below - (sums[-1] - sums) / above) ** 2 * below * above
    return int(np.nan_to_num(between, nan=-1.0).argmax())


class Background:
    """Mean of |generated - source| over all background pixels and RGB channels, in [0, 1]."""

    descriptions = {KEY: "L1 to the source outside both subjects, RGB in [0, 1]; lower is better"}  # noqa: RUF012

    def __init__(self) -> None:
        self._mean = Mean()

    def add(self, generated: np.ndarray, source: np.ndarray, where: np.ndarray) -> None:
        """(N, H, W, 3) uint8 twice, and the background (N, H, W) bool."""
        difference = np.abs(generated.astype(np.float32) - source.astype(np.float32))[where] / 255
        self._mean.add(float(difference.sum(dtype=np.float64)), difference.size)

    def finish_clip(self) -> Figures:
        """The clip's value; absent when its subjects fill the frame."""
        return named({KEY: self._mean.finish_clip()})
