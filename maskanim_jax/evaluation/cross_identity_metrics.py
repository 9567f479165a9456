"""How far is an animated puppet from the right answer? Figure, place and looks, each defined to the pixel.

The right answer is the true rendering of the source's identity, before its own background, in the driver's pose. Frames are (S, S, 3)
float32 RGB in [0, 1]; a pixel's centre has integer coordinates, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

FIGURE = 0.2
"""RGB distance from the empty background from which on a pixel belongs to the figure: half of the least contrast that puppets are drawn with."""
WINDOW = 0.17
"""Side of the window that is compared around a joint, a share of the frame's."""
REACH = 0.25
"""A joint is looked for at most so far from where it should be, along x and along y, a share of the frame's side."""
UNIT_SIDE = 64
"""Distances are in pixels of a frame of this side, so that runs of all frame sizes can be compared."""
EQUAL = 1e-6
"""Costs that differ by less are equal."""


class GroundTruth(NamedTuple):
    """What is known of one frame of an animation."""

    frame: np.ndarray  # (S, S, 3), the right answer
    background: np.ndarray  # (S, S, 3), the source's, without a figure
    silhouette: np.ndarray  # (S, S) bool, where the figure covers more than half of a pixel
    joints: np.ndarray  # (J, 2) float32 pixels


def l1(frame: np.ndarray, truth: GroundTruth) -> float:
    """Mean absolute difference over all pixels and channels."""
    return float(np.abs(frame - truth.frame).mean())


def l1_where(frame: np.ndarray, truth: GroundTruth, where: np.ndarray) -> float:
    """The same over the pixels of `where` (S, S) bool alone; NaN when there are none."""
    return float(np.abs(frame - truth.frame)[where].mean()) if where.any() else float("nan")


def silhouette_iou(frame: np.ndarray, truth: GroundTruth) -> float:
    """Intersection over union of the true silhouette and the pixels that differ from the empty background by more than FIGURE."""
    found = np.linalg.norm(frame - truth.background, axis=-1) > FIGURE
    union = (found | truth.silhouette).sum()
    return float((found & truth.silhouette).sum() / union) if union else 1.0


class Joints(NamedTuple):
    """`error`: mean distance in pixels between where joints are found and where they should be, a missing one counting as
    the reach; `missing`: share of joints that are not found."""

    error: float
    missing: float


class JointFinder:
    """Where is the picture around each joint found again? Prepared for one right answer, used for many frames.

    The template of a joint is the right answer in a square window around the joint's nearest pixel, weighted by a Gaussian whose
    deviation is a quarter of the window's side. Its cost at a place is the weighted sum of squared differences; beyond the frame's edge the edge's
    pixels are repeated. The joint lies where the cost is least among all places within REACH, the nearest one of equals.
    It is missing when the empty background, searched in the same way, resembles the template as much as the frame does anywhere.
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
        """Around each joint, all that its template can be compared with."""
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
    """Of the pixels that belong to only one of the two true silhouettes, source's and driver's, the share in which `frame` sides with the driver.

    The frame's silhouette is that of `silhouette_iou`. 0 for the right answer; NaN when the silhouettes are the same.
    """
    where = truth.silhouette != driver_silhouette
    found = np.linalg.norm(frame - truth.background, axis=-1) > FIGURE
    return float((found == driver_silhouette)[where].mean()) if where.any() else float("nan")


def leak(frame: np.ndarray, own: np.ndarray, driver: np.ndarray, bystander: np.ndarray, where: np.ndarray) -> float:
    """How much of the driver's looks is in `frame`, beyond chance: 0 for `own`, 1 for `driver`, 0 for anything that knows neither.

    `own`, `driver` and `bystander` (S, S, 3) show the same pose with the looks of the source, of the driver and of somebody who has nothing to
    do with it. Over the pixels of `where`, frame = own + a (driver - own) + b (bystander - own) is solved for a and b by least squares;
    returns a - b, since a grey blur resembles everybody. NaN when `where` has less than 8 pixels.
    """
    if where.sum() < 8:
        return float("nan")
    towards = np.stack([(other - own)[where].ravel() for other in (driver, bystander)], axis=1).astype(np.float64)
    solved = np.linalg.lstsq(towards, (frame - own)[where].ravel().astype(np.float64), rcond=None)[0]
    return float(solved[0] - solved[1])


def _gaussian(half: int) -> np.ndarray:
    """(2 half + 1, 2 half + 1, 1) weights that sum to 1."""
    at = np.arange(-half, half + 1)
    line = np.exp(-0.5 * np.square(at / ((2 * half + 1) / 4)))
    weights = line[:, None] * line[None, :]
    return (weights / weights.sum())[..., None].astype(np.float32)


def _costs(area: np.ndarray, template: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(P, P): the weighted sum of squared differences of the template at every place of `area`."""
    windows = np.lib.stride_tricks.sliding_window_view(area, template.shape)[:, :, 0]
    flat = windows.reshape(*windows.shape[:2], -1)
    spread = np.broadcast_to(weights, template.shape).ravel()
    known = (template * weights).ravel()
    return np.square(flat) @ spread - 2 * flat @ known + float(template.ravel() @ known)
