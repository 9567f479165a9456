"""How sure is a mean over few clips? The interval that the mean of clips drawn again with replacement falls into in 95 of 100 draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000
SHARE = 0.95


class Interval(NamedTuple):
    """A mean and the ends of its interval; with one clip, both ends are the mean."""

    mean: float
    low: float
    high: float


def interval(values: Sequence[float], weights: Sequence[float] | None = None, seed: int = 0) -> Interval:
    """The percentile bootstrap of the mean of one value a clip, weighted (by frames) if asked.

    The same seed and number of clips draw the same clips.
    """
    array = np.asarray(values, np.float64)
    share = np.ones(len(array)) if weights is None else np.asarray(weights, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(array), (DRAWS, len(array)))
    means = (array * share)[drawn].sum(1) / share[drawn].sum(1)
    low, high = np.quantile(means, [(1 - SHARE) / 2, (1 + SHARE) / 2])
    return Interval(float((array * share).sum() / share.sum()), float(low), float(high))
