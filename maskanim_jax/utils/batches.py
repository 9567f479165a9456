"""How is a stream cut into batches of one size, so that one compilation serves every length?"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np


def padded_batches(items: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Stacks of `size` arrays, each with the number of those that count: the last stack is filled with copies of its last array.

    `items` are arrays of one shape; at most `size` of them are read ahead.
    """
    rest = iter(items)
    while chunk := list(itertools.islice(rest, size)):
        yield np.stack(chunk + chunk[-1:] * (size - len(chunk))), len(chunk)
