"""Do masks match the true silhouettes of puppets?

IoU at the best threshold and sign of the mask.
"""

from __future__ import annotations

import numpy as np

THRESHOLDS = np.arange(1, 50) / 50


class MaskIoU:
    """Accumulates intersections and unions over clips, with one threshold
    and sign for all of them.
    """

    def __init__(self) -> None:
        self.count = 0
        self._inter = np.zeros((2, len(THRESHOLDS)))
        self._union = np.zeros((2, len(THRESHOLDS)))

    def add(self, masks: np.ndarray, silhouettes: np.ndarray) -> None:
        """Adds `masks` (T, L, L) and true `silhouettes` (T, S, S), both in [0, 1].

        S is a multiple of L; silhouettes are downsampled by the mean and thresholded at 0.5.
        """
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
        """`iou` at the best `iou_threshold`, over all added pixels; `iou_inverted`: whether 1 -
        mask was better.
        """
        iou = self._inter / np.maximum(self._union, 1)
        sign, i = np.unravel_index(int(iou.argmax()), iou.shape)
        return {"iou": float(iou[sign, i]), "iou_threshold": float(THRESHOLDS[i]), "iou_inverted": bool(sign)}
