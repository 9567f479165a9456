"""What must a metric implement?

It takes batches of frames and returns values per clip and overall.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

Figures = dict[str, float]
"""Values by key. A key that could not be measured (no face in any frame) is absent, never 0 or NaN.
"""


class Metric(Protocol):
    """Accumulates sums, never frames, so memory does not grow with the number of clips."""

    descriptions: dict[str, str]
    """Description of each key: what it is, by which network, and which direction is better."""

    def add(self, generated: np.ndarray, true: np.ndarray) -> None:
        """Adds frames of the current clip, (N, H, W, 3) RGB floats in [0, 1]
        each, in the same order.
        """
        ...

    def finish_clip(self) -> Figures:
        """Ends the current clip and returns its values."""
        ...

    def overall(self) -> Figures:
        """The values over all finished clips; every frame (or keypoint) has the same weight."""
        ...


class Mean:
    """A mean over the values of a clip and over those of all finished clips."""

    def __init__(self) -> None:
        self._clip = self._all = 0.0
        self._clip_count = self._all_count = 0

    def add(self, total: float, count: int) -> None:
        """A sum of `count` values."""
        self._clip += float(total)
        self._clip_count += int(count)

    def finish_clip(self) -> float | None:
        """The clip's mean; None if it has no values."""
        mean = self._clip / self._clip_count if self._clip_count else None
        self._all += self._clip
        self._all_count += self._clip_count
        self._clip, self._clip_count = 0.0, 0
        return mean

    def overall(self) -> float | None:
        """The mean over all values of the finished clips."""
        return self._all / self._all_count if self._all_count else None


class PerFrame:
    """A metric with one value per frame; the clip's value and the overall
    value are means over frames.
    """

    def __init__(self, key: str, description: str) -> None:
        self.key = key
        self.descriptions = {key: description}
        self._mean = Mean()

    def values(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        """Two batches (N, H, W, 3) to the value of each frame, (N,) float64."""
        raise NotImplementedError

    def add(self, generated: np.ndarray, true: np.ndarray) -> None:
        values = self.values(generated, true)
        self._mean.add(float(values.sum()), len(values))

    def finish_clip(self) -> Figures:
        return named({self.key: self._mean.finish_clip()})

    def overall(self) -> Figures:
        return named({self.key: self._mean.overall()})


def named(values: dict[str, float | None]) -> Figures:
    """The values that could be measured."""
    return {key: value for key, value in values.items() if value is not None}
