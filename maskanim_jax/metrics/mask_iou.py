"""Do masks agree with the true silhouettes of drawn figures? The best IoU over thresholds, and over both signs of the mask."""

from __future__ import annotations

import numpy as np

THRESHOLDS = np.arange(1, 50) / 50


class MaskIoU:
    """Counts intersections and unions over clips: one threshold and one sign for all of them."""

    def __init__(self) -> None:
        self.count = 0
        self._inter = np.zeros((2, len(THRESHOLDS)))
        self._union = np.zeros((2, len(THRESHOLDS)))

    def add(self, masks: np.ndarray, silhouettes: np.ndarray) -> None:
        """`masks` (T, L, L) in [0, 1]; `silhouettes` (T, S, S) coverage in [0, 1], S a multiple of L, reduced by the mean and cut at 0.5."""
        frames, side = masks.shape[:2]
        factor = silhouettes.shape[1] // side
        true = silhouettes.reshape(frames, side, factor, side, factor).mean((2, 4)) > 0.5
        for sign, values in enumerate((masks, 1 - masks)):
            for i, threshold in enumerate(THRESHOLDS):
                found = values > threshold
                self._inter[sign, i] += (found & true).sum()
                self._union[sign, i] += (found | true).sum()
        self.count += frames

    def best(self) -> dict[str, float | bool]:
        """`iou`: intersection over union of all pixels added, at the best `iou_threshold`; `iou_inverted`: 1 - mask was the better."""
        iou = self._inter / np.maximum(self._union, 1)
        sign, i = np.unravel_index(int(iou.argmax()), iou.shape)
        return {"iou": float(iou[sign, i]), "iou_threshold": float(THRESHOLDS[i]), "iou_inverted": bool(sign)}
