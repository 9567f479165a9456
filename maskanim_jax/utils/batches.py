"""How is a stream split into batches of a fixed size, so that one
compilation serves every length?
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np


def padded_batches(items: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yields (stack of `size` arrays, number of valid ones); the last stack is padded with its last
    array.

    `items` are arrays of one shape. At most `size` of them are read ahead.
    """
    rest = iter(items)
    while chunk := list(itertools.islice(rest, size)):
        yield np.stack(chunk + chunk[-1:] * (size - len(chunk))), len(chunk)
