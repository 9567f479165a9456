"""Is what lies around the subject left as it was? L1 to the source where neither the source's nor the driver's subject is.

The subject's place is made out from soft masks (panels 2 and 4 of the authors' videos: the masks of Perturbed Masks, which may favour
that method): a pixel belongs to the subject when its mask is above Otsu's threshold of that mask, or within `MARGIN` pixels of such a
pixel. The background is what belongs to neither subject; what both hide is no matter of keeping.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from maskanim_jax.metrics.interface import Figures, Mean, named

MARGIN = 12
"""Pixels by which a subject is widened on each side (a square around each pixel)."""
KEY = "background_l1"


def background(*masks: np.ndarray) -> np.ndarray:
    """Masks (H, W) uint8 of one frame to the pixels (H, W) bool that are near no subject."""
    result = np.ones(masks[0].shape, bool)
    for mask in masks:
        subject = Image.fromarray((mask > otsu(mask)).astype(np.uint8) * 255)
        result &= np.asarray(subject.filter(ImageFilter.MaxFilter(2 * MARGIN + 1))) == 0
    return result


def otsu(mask: np.ndarray) -> int:
    """The value that splits the histogram of (H, W) uint8 into two classes, "at most" and "above", with the least variance inside them."""
    counts = np.bincount(mask.ravel(), minlength=256).astype(np.float64)
    below, sums = counts.cumsum(), (counts * np.arange(256)).cumsum()
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (sums / below - (sums[-1] - sums) / above) ** 2 * below * above
    return int(np.nan_to_num(between, nan=-1.0).argmax())


class Background:
    """Mean of |generated - source| over the background's pixels and the channels of RGB in [0, 1]; every pixel counts the same."""

    descriptions = {KEY: "L1 to the source outside both subjects, RGB in [0, 1]; lower is better"}  # noqa: RUF012

    def __init__(self) -> None:
        self._mean = Mean()

    def add(self, generated: np.ndarray, source: np.ndarray, where: np.ndarray) -> None:
        """(N, H, W, 3) uint8 twice, and the background (N, H, W) bool."""
        difference = np.abs(generated.astype(np.float32) - source.astype(np.float32))[where] / 255
        self._mean.add(float(difference.sum(dtype=np.float64)), difference.size)

    def finish_clip(self) -> Figures:
        """The clip's figure; nothing when its subjects fill the frame."""
        return named({KEY: self._mean.finish_clip()})
