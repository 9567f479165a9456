"""Which region of a frame does a landmark network see, and how are its points mapped back?

This follows MediaPipe: a detector gives boxes and a few keypoints relative to anchors. A rotated
square around them is cropped, and its landmarks are transformed back to the frame.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image

_OVERLAP = 0.3  # boxes with a larger overlap with the best one are averaged into it, weighted by score


class Region(NamedTuple):
    """A square in the frame: centre and side in pixels, turned clockwise by `angle` radians."""

    x: float
    y: float
    side: float
    angle: float = 0.0


class Detection(NamedTuple):
    """The best box and its keypoints, in units of the detector's square input."""

    score: float
    box: np.ndarray
    """(4,) centre x, centre y, width, height."""
    points: np.ndarray
    """(K, 2)."""


def whole(height: int, width: int) -> Region:
    """The smallest upright square around the whole frame, centred."""
    return Region(width / 2, height / 2, max(height, width))


def cut(frame: np.ndarray, region: Region, size: int) -> np.ndarray:
    """(H, W, 3) uint8 to the region as (size, size, 3) float32 in [0, 255], bilinear; black outside
    the frame.
    """
    step = region.side / size
    cos, sin = step * math.cos(region.angle), step * math.sin(region.angle)
    left = region.x - (cos - sin) * size / 2
    top = region.y - (sin + cos) * size / 2
    image = Image.fromarray(np.ascontiguousarray(frame))
    coefficients = (cos, -sin, left, sin, cos, top)
    moved = image.transform((size, size), Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)
    return np.asarray(moved, np.float32)


def back(points: np.ndarray, region: Region) -> np.ndarray:
    """Converts (K, 2) in units of the region's side to pixels of the frame."""
    x, y = (np.asarray(points, np.float64) - 0.5).T * region.side
    cos, sin = math.cos(region.angle), math.sin(region.angle)
    return np.stack([region.x + cos * x - sin * y, region.y + sin * x + cos * y], axis=-1)


def anchors(size: int, strides: tuple[int, ...]) -> np.ndarray:
    """Centres (A, 2) of the anchors in units of the input.

    Each distinct stride has a grid, with two anchors per cell for each occurrence of the stride.
    """
    found = []
    for stride in sorted(set(strides)):
        cells = math.ceil(size / stride)
        at = (np.arange(cells) + 0.5) / cells
        grid = np.stack(np.meshgrid(at, at), axis=-1).reshape(-1, 2)
        found.append(np.repeat(grid, 2 * strides.count(stride), axis=0))
    return np.concatenate(found).astype(np.float32)


def best(raw: np.ndarray, logits: np.ndarray, centres: np.ndarray, size: int, least: float) -> Detection | None:
    """The detection with the highest score, averaged with overlapping ones; None if none
    reaches the score `least`.

    `raw` (A, 4 + 2 K) in pixels of the input relative to the anchors: centre, width and height of
    the box, keypoints. `logits` (A,).
    """
    scores = 1 / (1 + np.exp(-np.clip(logits.astype(np.float64), -100, 100)))
    chosen = scores >= least
    if not chosen.any():
        return None
    scores, centres, values = scores[chosen], centres[chosen], raw[chosen] / size
    boxes = np.concatenate([values[:, :2] + centres, values[:, 2:4]], axis=1)
    points = values[:, 4:].reshape(len(values), -1, 2) + centres[:, None]
    top = int(scores.argmax())
    near = _shared(boxes[top], boxes) > _OVERLAP
    weights = scores[near] / scores[near].sum()
    return Detection(float(scores[top]), weights @ boxes[near], np.tensordot(weights, points[near], 1))


def _shared(one: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The intersection over union of one box with (A, 4) boxes."""
    low = np.maximum(one[:2] - one[2:] / 2, boxes[:, :2] - boxes[:, 2:] / 2)
    high = np.minimum(one[:2] + one[2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2)
    inter = np.prod(np.maximum(high - low, 0), axis=1)
    return inter / np.maximum(np.prod(one[2:]) + np.prod(boxes[:, 2:], axis=1) - inter, 1e-9)
