"""Where in a clip is the subject? It is found by motion or by its face.

`find_parts` returns one square box per clip, or several with their ranges of frames if the subject
travels; `maskanim_jax.crop` cuts them out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
from PIL import Image, ImageFilter

from input_pipeline.preparation.boxes import Box
from maskanim_jax.errors import UserError
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.video.faces import FaceFinder, is_installed
from maskanim_jax.video.reader import FrameSource, open_frames

Finder = Literal["auto", "motion", "face"]
Detect = Callable[[np.ndarray], Box | None]
"""Maps an (H, W, 3) uint8 frame to the pixel box of its largest face, or None."""

_SIDE = 160  # motion is detected in frames whose longer side is this
_MOST = 1000  # analysed frames; longer clips are subsampled by 2, 4, ...
_BACKGROUND = 64  # frames whose median is the still background
_LEAST = 18.0  # threshold on the change of a colour channel, of 255; higher where the whole frame flickers
_SPECKS = 0.003  # share of the moving pixels that is trimmed on each side
_EVERYTHING = 0.85  # share of the frame's width and height above which motion is uninformative
_TRAVEL = 1.5  # a range ends when its box exceeds this multiple of the largest one-second box
_FACES = 64  # frames searched for a face
_TINY = 0.08  # share of the frame's width; smaller faces mean that whole bodies are shown
_FACE_MARGIN = 0.5  # a face box spans brows to chin; the crop shows the whole head

Extent = tuple[float, float, float, float]
"""x0, y0, x1, y1 as shares of the frame, in [0, 1]."""


class Part(NamedTuple):
    """Frames start, ..., end - 1 and the square `box` around the subject, in
    pixels of the upright frame.
    """

    start: int
    end: int
    box: Box


class _Look(NamedTuple):
    """Result of one pass over a clip: every `step`-th frame, downscaled; faces by frame number;
    length; (width, height).
    """

    small: list[np.ndarray]
    step: int
    faces: dict[int, Extent | None]
    length: int
    size: tuple[int, int]


class Found(NamedTuple):
    """The parts found in a clip of `length` frames, in order, with the finder used and warnings."""

    parts: list[Part]
    length: int
    finder: str
    warnings: list[str]


def find_parts(
    path: str | Path,
    finder: Finder = "auto",
    margin: float = 0.1,
    box: Box | None = None,
    detect: Detect | None = None,
    progress: bool = False,
) -> Found:
    """Finds square boxes around the subject of a video, a gif, a folder of
    frames or a single image.

    "motion" takes what differs from the still background, "face" the largest face. "auto" uses
    faces if a face back-end is installed and most frames have a face that is not tiny, else motion.
    `margin` is added on each side, as a share of the subject's size. `box` replaces the search and
    is grown to a square. `detect` replaces the installed face back-end.

    Raises UserError for unreadable files, when nothing moves, and for a single image without a face
    back-end or `box`.
    """
    path = Path(path)
    if finder not in get_args(Finder):
        raise UserError(f"finder={finder!r} is unknown: give one of {', '.join(get_args(Finder))}")
    if not 0 <= margin <= 2:
        raise UserError(f"the margin must be from 0 to 2, as a share of the subject, not {margin}")
    with open_frames(path) as frames:
        if detect is None and box is None and finder != "motion":
            detect = _face_back_end(path, required=finder == "face", picture=frames.count == 1)
        if frames.count == 1 and finder == "motion" and box is None:
            raise UserError(
                f"{path} is a single image, in which nothing moves; give --finder=face or --box=x0,y0,x1,y1"
            )
        seen = _look(frames, detect if box is None and finder != "motion" else None, progress)
    if box is not None:
        square, _ = square_around(_shares(box, seen.size, path), seen.size, 0.0)
        return Found([Part(0, seen.length, square)], seen.length, "box", [])
    faces = {index: face for index, face in seen.faces.items() if face is not None}
    usual = len(faces) > len(seen.faces) / 2 and max(map(_width, faces.values())) > _TINY
    if faces and (finder == "face" or usual or seen.length == 1):
        extents: list[Extent | None] = [None] * len(seen.small)
        for index, face in faces.items():
            extents[index // seen.step] = face
        return _squares(extents, seen, frames.fps, "face", margin + _FACE_MARGIN)
    if finder == "face" or seen.length == 1:
        raise UserError(f"no face was found in {path}; give the subject's box with --box=x0,y0,x1,y1")
    extents = _moving(np.stack(seen.small))
    if not any(extents):
        raise UserError(f"nothing moves in {path}; give the subject's box with --box=x0,y0,x1,y1")
    return _squares(extents, seen, frames.fps, "motion", margin)


def square_around(extent: Extent, size: tuple[int, int], margin: float) -> tuple[Box, bool]:
    """The square of whole pixels around `extent` in frames of `size` (width, height), and
    whether the extent fits.

    The square is moved into the frame and is at most as large as the frame's shorter side. Its side
    is even, as video codecs need.
    """
    width, height = size
    x0, y0, x1, y1 = extent[0] * width, extent[1] * height, extent[2] * width, extent[3] * height
    longer = max(x1 - x0, y1 - y0)
    side = min(2 * round(longer * (1 + 2 * margin) / 2), width, height)
    side = max(2, side - side % 2) if min(width, height) > 1 else 1
    left = int(np.clip(round((x0 + x1 - side) / 2), 0, width - side))
    top = int(np.clip(round((y0 + y1 - side) / 2), 0, height - side))
    return (left, top, left + side, top + side), longer <= side + 2


def _look(frames: FrameSource, detect: Detect | None, progress: bool) -> _Look:
    """Reads the clip once; subsamples evenly to at most `_MOST` frames to bound memory."""
    small: list[np.ndarray] = []
    faces: dict[int, Extent | None] = {}
    step, index, size, inner = 1, -1, (0, 0), (0, 0)
    wanted = max(1, (frames.count or 0) // _FACES)
    for index, frame in enumerate(
        ProgressBar(frames, f"looking at {frames.path.name}", frames.count, disable=not progress)
    ):
        if not inner[0]:
            size = (frame.shape[1], frame.shape[0])
            scale = min(1.0, _SIDE / max(size))
            inner = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        elif frame.shape[:2] != size[::-1]:
            raise UserError(f"{frames.path} has frames of several sizes; resize them to one size first")
        if index % step == 0:
            picture = Image.fromarray(frame).resize(inner, Image.Resampling.BOX)
            small.append(np.asarray(picture))
            if detect is not None and index % (wanted * step) == 0:
                face = detect(frame)
                faces[index] = None if face is None else _shares(face, size, frames.path)
            if len(small) > _MOST:
                small, step = small[::2], 2 * step
    return _Look(small, step, faces, index + 1, size)


def _moving(small: np.ndarray) -> list[Extent | None]:
    """For each small frame, (T, H, W, 3) uint8: the extent of what differs
    from the still background.
    """
    picked = small[np.linspace(0, len(small) - 1, min(len(small), _BACKGROUND)).round().astype(int)]
    background = np.median(picked, axis=0)
    extents: list[Extent | None] = []
    for frame in small:
        change = np.abs(frame - background).max(axis=-1)
        active = change > max(_LEAST, 3 * float(np.median(change)))
        # The median filter removes single noisy pixels.
        clean = np.asarray(Image.fromarray((255 * active).astype(np.uint8)).filter(ImageFilter.MedianFilter(3))) > 0
        extents.append(_extent(clean))
    return extents


def _extent(active: np.ndarray) -> Extent | None:
    """The extent of the True values of (H, W), without the outermost few; None
    if there are hardly any.
    """
    if active.sum() < max(4, active.size * 0.0005):
        return None
    ends = []
    for axis in (0, 1):
        share = np.cumsum(active.sum(axis=axis)) / active.sum()
        length = active.shape[1 - axis]
        first, last = np.searchsorted(share, [_SPECKS, 1 - _SPECKS])
        ends.append((first / length, (min(last, length - 1) + 1) / length))
    (x0, x1), (y0, y1) = ends
    return (float(x0), float(y0), float(x1), float(y1))


def _squares(extents: list[Extent | None], seen: _Look, fps: Fraction, finder: str, margin: float) -> Found:
    """One box for the clip, or one for each range if the subject travels,
    in windows of one second.
    """
    size, count, step = seen.size, seen.length, seen.step
    second = max(1, round(fps / step))
    windows = [
        _union([e for e in extents[i : i + second] if e]) if any(extents[i : i + second]) else None
        for i in range(0, len(extents), second)
    ]
    ranges: list[tuple[int, Extent | None, float]] = []  # first window, extent of the range, largest side of one window
    for number, window in enumerate(windows):
        if not ranges:
            ranges.append((number, window, _side(window, size)))
            continue
        first, extent, largest = ranges[-1]
        both = _union([e for e in (extent, window) if e]) if extent or window else None
        largest = max(largest, _side(window, size))
        if extent and window and _side(both, size) > _TRAVEL * largest:
            ranges.append((number, window, _side(window, size)))
        else:
            ranges[-1] = (first, both, largest)
    parts, warnings = [], []
    for (first, extent, _), follow in zip(ranges, [*ranges[1:], None], strict=True):
        assert extent is not None  # a range starts with a subject, or gets the next one
        end = count if follow is None else follow[0] * second * step
        box, fits = square_around(extent, size, margin)
        parts.append(Part(first * second * step, end, box))
        if finder == "motion" and min(_width(extent), extent[3] - extent[1]) > _EVERYTHING:
            warnings.append(
                f"almost everything moves in frames {parts[-1].start} to {end - 1}, perhaps the camera: give --box"
            )
        elif not fits:
            warnings.append(
                f"the subject of frames {parts[-1].start} to {end - 1} does not fit into a square in {size[0]} x {size[1]}"
            )
    return Found(parts, count, finder, warnings)


def _union(extents: Sequence[Extent]) -> Extent:
    x0, y0, x1, y1 = zip(*extents, strict=True)
    return (min(x0), min(y0), max(x1), max(y1))


def _width(extent: Extent) -> float:
    return extent[2] - extent[0]


def _side(extent: Extent | None, size: tuple[int, int]) -> float:
    """The longer side in pixels."""
    return max(_width(extent) * size[0], (extent[3] - extent[1]) * size[1]) if extent else 0.0


def _shares(box: Box, size: tuple[int, int], path: Path) -> Extent:
    width, height = size
    x0, y0, x1, y1 = max(0, box[0]), max(0, box[1]), min(width, box[2]), min(height, box[3])
    if x0 >= x1 or y0 >= y1:
        raise UserError(f"the box {box} lies outside {path} of {width} x {height}; correct --box")
    return (x0 / width, y0 / height, x1 / width, y1 / height)


def _face_back_end(path: Path, required: bool, picture: bool) -> Detect | None:
    """dlib's detector of frontal faces, which needs no weights file; None if not
    installed and not required.
    """
    if not is_installed():
        if required or picture:
            what = f"{path} is a single image, in which nothing moves" if picture else "faces"
            raise UserError(
                f"{what}: finding a face needs the extra `face` (pip install 'maskanim_jax[face]'); or give --box=x0,y0,x1,y1"
            )
        return None
    finder = FaceFinder()

    def detect(frame: np.ndarray) -> Box | None:
        found = [rectangle for _, rectangle in finder.faces(frame)]
        if not found:
            return None
        face = max(found, key=lambda r: r.width() * r.height())
        return (face.left(), face.top(), face.right() + 1, face.bottom() + 1)

    return detect
