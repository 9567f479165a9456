"""How are frames rotated and mirrored according to their container's display matrix?"""

from __future__ import annotations

import struct

import av
import numpy as np
from av.buffer import Buffer

Matrix = tuple[int, int, int, int]
"""(a, b, c, d): the stored point (x, y) is shown at (a x + c y, b x + d y), up to a shift and a
positive factor.
"""


def display_matrix(frame: av.VideoFrame) -> Matrix | None:
    """The frame's display matrix; None if there is none, so the frame is shown as stored."""
    entry = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(entry, Buffer) or len(values := bytes(entry)) < 36:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", values[:36])
    return a, b, c, d


def upright(picture: np.ndarray, matrix: Matrix | None) -> np.ndarray:
    """The (H, W, C) picture in display orientation: the one of the eight orientations that
    is nearest to the matrix.
    """
    if matrix is None:
        return picture
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, right, down = picture.swapaxes(0, 1), c, b
    else:
        right, down = a, d
    picture = picture[:, ::-1] if right < 0 else picture
    picture = picture[::-1] if down < 0 else picture
    return np.ascontiguousarray(picture)
