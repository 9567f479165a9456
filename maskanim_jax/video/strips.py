"""How are arrays shown as images: single ones, strips, and grids of strips?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

CAPTION_HEIGHT = 16
FONT_SIZE = 11


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """(H, W, 3) or (H, W, 1) float in [0, 1] to (H, W, 3) uint8, rounded; a mask becomes grey.

    Values are clipped, NaN becomes black. uint8 images keep their values.
    """
    values = np.asarray(picture)
    if values.dtype != np.uint8:
        scaled = np.nan_to_num(values.astype(np.float32), nan=0.0) * 255
        values = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(values, 3, axis=2) if values.shape[2] == 1 else values


def strip(pictures: Mapping[str, np.ndarray], order: Sequence[str], size: int, captions: bool = False) -> np.ndarray:
    """The images named in `order` side by side: (size, len(order) * size, 3) uint8.

    Each image is (H, W, 1 or 3), float in [0, 1] or uint8, and is resized to size x size; masks by
    nearest neighbour, so that their pixels stay visible. With captions, CAPTION_HEIGHT rows with
    the names are added on top.
    """
    row = np.concatenate([_resized(pictures[name], size) for name in order], axis=1)
    if not captions:
        return row
    return np.concatenate([_captions([name.replace("_", " ") for name in order], size), row], axis=0)


def grid(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks (H_i, W_i, 3) uint8 rows vertically: (sum of H, largest W, 3).

    Shorter rows are padded with white.
    """
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(padded, axis=0)


def _resized(picture: np.ndarray, size: int) -> np.ndarray:
    pixels = to_uint8(picture)
    if pixels.shape[:2] == (size, size):
        return pixels
    how = Image.Resampling.NEAREST if picture.shape[2] == 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((size, size), how))


def _captions(names: Sequence[str], size: int) -> np.ndarray:
    """Black names on white, in one font size that fits the columns."""
    longest = max(ImageFont.load_default(FONT_SIZE).getlength(name) for name in names)
    font = ImageFont.load_default(max(1.0, min(FONT_SIZE, FONT_SIZE * (size - 2) / longest)))
    line = Image.new("RGB", (size * len(names), CAPTION_HEIGHT), "white")
    for column, name in enumerate(names):
        cell = Image.new("RGB", (size, CAPTION_HEIGHT), "white")
        ImageDraw.Draw(cell).text((size / 2, CAPTION_HEIGHT / 2), name, fill="black", font=font, anchor="mm")
        line.paste(cell, (column * size, 0))
    return np.asarray(line)
