"""How is an animated puppet compared with the ground truth? Silhouette, joints and appearance.

The ground truth is the true rendering of the source's identity, on its own background, in the
driver's pose. Frames are (S, S, 3) float32 RGB in [0, 1]; pixel centres have integer coordinates, x
to the right and y down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

FIGURE = 0.2
"""RGB distance from the empty background above which a pixel belongs to the figure.

Half of the lowest contrast with which puppets are drawn.
"""
WINDOW = 0.17
"""Side of the template window around a joint, as a fraction of the frame's side."""
REACH = 0.25
"""Search radius around a joint's true position along x and y, as a fraction of the frame's side."""
UNIT_SIDE = 64
"""Distances are in pixels of a frame of this side, so that runs with different frame sizes are
comparable.
"""
EQUAL = 1e-6
"""Costs with a smaller difference are ties."""


class GroundTruth(NamedTuple):
    """The ground truth of one animated frame."""

    frame: np.ndarray  # (S, S, 3), the true rendering
    background: np.ndarray  # (S, S, 3), the source's background without the figure
    silhouette: np.ndarray  # (S, S) bool, where the figure covers more than half of a pixel
    joints: np.ndarray  # (J, 2) float32 pixels


def l1(frame: np.ndarray, truth: GroundTruth) -> float:
    """Mean absolute difference over all pixels and channels."""
    return float(np.abs(frame - truth.frame).mean())


def l1_where(frame: np.ndarray, truth: GroundTruth, where: np.ndarray) -> float:
    """The same over the pixels of `where` (S, S) bool only; NaN if there are none."""
    return float(np.abs(frame - truth.frame)[where].mean()) if where.any() else float("nan")


def silhouette_iou(frame: np.ndarray, truth: GroundTruth) -> float:
    """Intersection over union of the true silhouette and the pixels that differ from the empty
    background by more than FIGURE.
    """
    found = np.linalg.norm(frame - truth.background, axis=-1) > FIGURE
    union = (found | truth.silhouette).sum()
    return float((found & truth.silhouette).sum() / union) if union else 1.0


class Joints(NamedTuple):
    """`error`: mean distance in pixels between found and true joints; a missing one counts as the
    reach. `missing`: share of joints that were not found.
    """

    error: float
    missing: float


class JointFinder:
    """Finds joints by template matching. Built for one ground-truth frame, used for many animated
    frames.

    The template of a joint is a square window of the ground truth around the joint's nearest pixel,
    weighted by a Gaussian whose standard deviation is a quarter of the window's side. The cost at a
    position is the weighted sum of squared differences; edge pixels are repeated outside the frame.
    The joint is where the cost is lowest within REACH; among ties, the nearest position. It is
    missing if the empty background matches the template at least as well as the frame does.
    """

    def __init__(self, truth: GroundTruth) -> None:
        side = truth.frame.shape[0]
        self._half, self._reach = max(1, round(WINDOW * side / 2)), round(REACH * side)
        offsets = np.arange(-self._reach, self._reach + 1)
        self._away = np.hypot(offsets[:, None], offsets[None, :])
        self._places = [(int(x), int(y)) for x, y in np.rint(truth.joints).clip(0, side - 1)]
        self._weights = _gaussian(self._half)
        r, window = self._reach, 2 * self._half + 1
        self._templates = [area[r : r + window, r : r + window].copy() for area in self._areas(truth.frame)]
        empty = zip(self._areas(truth.background), self._templates, strict=True)
        self._empty = [float(_costs(area, template, self._weights).min()) for area, template in empty]

    def _areas(self, frame: np.ndarray) -> Iterator[np.ndarray]:
        """The search area around each joint."""
        border = self._half + self._reach
        padded = np.pad(frame.astype(np.float32), ((border, border), (border, border), (0, 0)), mode="edge")
        for x, y in self._places:
            yield padded[y : y + 2 * border + 1, x : x + 2 * border + 1]

    def __call__(self, frame: np.ndarray) -> Joints:
        """The joints of `frame` (S, S, 3)."""
        errors, missing = [], []
        for area, template, empty in zip(self._areas(frame), self._templates, self._empty, strict=True):
            cost = _costs(area, template, self._weights)
            missing.append(bool(cost.min() >= empty - EQUAL))
            nearest = float(np.where(cost <= cost.min() + EQUAL, self._away, np.inf).min())
            errors.append(float(self._reach) if missing[-1] else min(nearest, float(self._reach)))
        return Joints(float(np.mean(errors)), float(np.mean(missing)))


def shape_leak(frame: np.ndarray, truth: GroundTruth, driver_silhouette: np.ndarray) -> float:
    """Share of the pixels in exactly one of the two true silhouettes in which `frame` agrees with
    the driver's.

    The frame's silhouette is that of `silhouette_iou`. 0 for the ground truth; NaN when the
    silhouettes of source and driver are equal.
    """
    where = truth.silhouette != driver_silhouette
    found = np.linalg.norm(frame - truth.background, axis=-1) > FIGURE
    return float((found == driver_silhouette)[where].mean()) if where.any() else float("nan")


def leak(frame: np.ndarray, own: np.ndarray, driver: np.ndarray, distractor: np.ndarray, where: np.ndarray) -> float:
    """Leakage of the driver's appearance into `frame`: 0 for `own`, 1 for `driver`.

    `own`, `driver` and `distractor` (S, S, 3) show the same pose with the appearance of the source,
    of the driver and of an unrelated identity, the distractor. Over the pixels of `where`, frame =
    own + a (driver - own) + b (distractor - own) is solved for a and b by least squares. Returns a
    - b, since a grey blur resembles every identity. NaN when `where` has fewer than 8 pixels.
    """
    if where.sum() < 8:
        return float("nan")
    towards = np.stack([(other - own)[where].ravel() for other in (driver, distractor)], axis=1).astype(np.float64)
    solved = np.linalg.lstsq(towards, (frame - own)[where].ravel().astype(np.float64), rcond=None)[0]
    return float(solved[0] - solved[1])


def _gaussian(half: int) -> np.ndarray:
    """(2 half + 1, 2 half + 1, 1) weights that sum to 1."""
    at = np.arange(-half, half + 1)
    line = np.exp(-0.5 * np.square(at / ((2 * half + 1) / 4)))
    weights = line[:, None] * line[None, :]
    return (weights / weights.sum())[..., None].astype(np.float32)


def _costs(area: np.ndarray, template: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(P, P): the weighted sum of squared differences of the template at
    every position of `area`.

    The square is multiplied out, and its two correlations are computed by FFT in float64: at 128
    pixels sliding windows took minutes for 20 pairs.
    """
    shape = area.shape[:2]

    def spectrum(values: np.ndarray) -> np.ndarray:
        return np.fft.rfft2(values.astype(np.float64), s=shape, axes=(0, 1))

    squares = spectrum(np.square(area, dtype=np.float64).sum(-1)) * spectrum(weights[..., 0]).conj()
    products = (spectrum(area) * spectrum(template * weights).conj()).sum(-1)
    positions = tuple(side - width + 1 for side, width in zip(shape, template.shape[:2], strict=True))
    found = np.fft.irfft2(squares - 2 * products, s=shape)[: positions[0], : positions[1]]
    return found + float(
        np.square(template, dtype=np.float64).ravel() @ np.broadcast_to(weights, template.shape).ravel()
    )
