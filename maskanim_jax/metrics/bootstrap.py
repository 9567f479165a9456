"""How certain is a mean over few clips? A 95 % percentile bootstrap interval over clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000
SHARE = 0.95


class Interval(NamedTuple):
    """A mean and its interval; with a single clip, both bounds equal the mean."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 0) -> Interval:
    """Percentile bootstrap of the (optionally frame-weighted) mean of one value per clip.

    The same seed and number of clips give the same resamples.
    """
    array = np.asarray(values, np.float64)
    share = np.ones(len(array)) if weights is None else np.asarray(weights, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(array), (DRAWS, len(array)))
    means = (array * share)[drawn].sum(1) / share[drawn].sum(1)
    low, high = np.quantile(means, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(float((array * share).sum() / share.sum()), float(low), float(high))
