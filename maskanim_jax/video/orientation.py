"""How are frames rotated and mirrored according to their container's display matrix?"""

from __future__ import annotations

import gc
import struct

import av
import numpy as np
from av.buffer import Buffer

Matrix = tuple[int, int, int, int]
"""(a, b, c, d): the stored point (x, y) is shown at (a x + c y, b x + d y), up to a shift and a
positive factor.
"""

EVERY = 24
"""Least number of frames between two readings of the matrix."""
COLLECT_AFTER = 64 * 2**20
"""Bytes."""


class OrientationReader:
    """Display matrices of a video's frames, read in order, one reader per video.

    PyAV's `frame.side_data` puts the frame into a reference cycle: the picture stays in memory
    until Python's garbage collector runs, and the collector doesn't know how large pictures are. A
    matrix can only change at a key frame, so few frames are asked, and the collector runs after
    `COLLECT_AFTER` bytes of them.
    """

    def __init__(self) -> None:
        self._matrix: Matrix | None = None
        self._frames_since: int | None = None  # frames since the last reading; None: no frame yet
        self._bytes_held = 0

    def __call__(self, frame: av.VideoFrame) -> Matrix | None:
        """The matrix that applies to `frame`; None: the frame is shown as it is stored."""
        if self._frames_since is None or (frame.key_frame and self._frames_since >= EVERY):
            if self._bytes_held > COLLECT_AFTER:
                gc.collect()
                self._bytes_held = 0
            self._matrix = display_matrix(frame)
            self._frames_since = 0
            self._bytes_held += 3 * frame.width * frame.height
        self._frames_since += 1
        return self._matrix


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
