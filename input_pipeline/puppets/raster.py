"""How are convex shapes drawn as pixels? Each is a hull of discs with a contour and a
pattern, painted back to front.

Points are complex numbers: x to the right, y down, as shares of the frame's side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from input_pipeline.puppets.identity import Colour, Texture

CONTOUR = 0.0075
"""Width of the contour as a share of the frame's side: half a pixel at 64 pixels."""
_DIRECTIONS = np.exp(2j * np.pi * np.arange(40) / 40)


class Hull(NamedTuple):
    """The convex hull of discs in one colour; `axis` is the pattern's direction,
    its origin the first disc.
    """

    discs: Sequence[tuple[complex, float]]
    colour: Colour
    texture: Texture | None = None
    axis: complex = 1j


class Group(NamedTuple):
    """Hulls that share one contour around their union.

    `line` is its colour; None means no contour.
    """

    hulls: Sequence[Hull]
    line: Colour | None


class Shapes:
    """Groups from back to front, ready to be measured, moved and painted."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        hulls = [hull for group in groups for hull in group.hulls]
        most = max(len(hull.discs) for hull in hulls)
        self._centres = np.empty((len(hulls), most), complex)
        self._radii = np.empty((len(hulls), most))
        for row, hull in enumerate(hulls):
            discs = [*hull.discs, *[hull.discs[0]] * (most - len(hull.discs))]
            self._centres[row] = [centre for centre, _ in discs]
            self._radii[row] = [radius for _, radius in discs]

    def bounds(self) -> tuple[complex, complex]:
        """The top left and bottom right corners of all painted shapes."""
        x, y, r = self._centres.real, self._centres.imag, self._radii
        return complex((x - r).min(), (y - r).min()), complex((x + r).max(), (y + r).max())

    def move(self, shift: complex) -> None:
        """Moves everything."""
        self._centres += shift

    def paint(self, side: int) -> Image.Image:
        """A (side, side) image in mode RGBa: colours and coverage, both 0
        where nothing is painted.
        """
        # this mode does not blend alpha: a polygon overwrites what is behind it, and downscaling averages each band
        canvas = Image.new("RGBa", (side, side))
        draw = ImageDraw.Draw(canvas)
        # Pillow also fills the pixels under the edge: half a pixel more on all sides
        outer, inner = self._outlines(0.5 / side, side), self._outlines(CONTOUR, side)
        row = 0
        for group in self._groups:
            rows = range(row, row + len(group.hulls))
            row = rows.stop
            if group.line is not None:
                ink = _ink(group.line)
                for at in rows:
                    draw.polygon(outer[at], fill=ink)
            shown = outer if group.line is None else inner
            for at, hull in zip(rows, group.hulls, strict=True):
                draw.polygon(shown[at], fill=_ink(hull.colour))
                if hull.texture is not None and hull.texture.kind != "plain":
                    # Distance from the origin to the farthest point.
                    radius = max(abs(c - hull.discs[0][0]) + r for c, r in hull.discs)
                    _pattern(canvas, shown[at], hull.texture, self._centres[at, 0], hull.axis, radius)
        return canvas

    def _outlines(self, shrink: float, side: int) -> list[list[int]]:
        """x, y, x, y, ... of each hull in pixels, with radii reduced by `shrink`, but
        to no less than a third.
        """
        radii = np.maximum(self._radii - shrink, self._radii / 3)
        reach = (self._centres[..., None] * _DIRECTIONS.conj()).real + radii[..., None]
        farthest = reach.argmax(1)
        points = np.take_along_axis(self._centres, farthest, 1) + np.take_along_axis(radii, farthest, 1) * _DIRECTIONS
        pixels = points.view(float) * side - 0.5
        result: list[list[int]] = np.rint(pixels).astype(int).tolist()
        return result


def _ink(colour: Colour) -> tuple[int, int, int, int]:
    r, g, b = (min(255, max(0, round(255 * c))) for c in colour)
    return r, g, b, 255


def _pattern(
    canvas: Image.Image, outline: list[int], texture: Texture, origin: complex, axis: complex, radius: float
) -> None:
    """Paints the texture's second colour over the polygon, in the hull's axes."""
    side = canvas.width
    left, top = max(0, min(outline[::2])), max(0, min(outline[1::2]))
    right, bottom = min(side, max(outline[::2]) + 1), min(side, max(outline[1::2]) + 1)
    if right <= left or bottom <= top:
        return
    corner, extent = complex(left, top), (right - left, bottom - top)
    mask = Image.new("L", extent)
    ImageDraw.Draw(mask).polygon([v - (left, top)[i % 2] for i, v in enumerate(outline)], fill=255)
    period = texture.period
    count = math.ceil(radius / period)
    across = axis * 1j

    def pixel(along: float, beside: float) -> tuple[int, int]:
        z = (origin + along * axis + beside * across) * side - corner
        return round(z.real - 0.5), round(z.imag - 0.5)

    def bands(turned: bool) -> Image.Image:
        picture = Image.new("L", extent)
        draw = ImageDraw.Draw(picture)
        for k in range(-count, count + 1):
            ends = (k - 0.25) * period, (k + 0.25) * period
            corners = [(ends[0], -radius), (ends[0], radius), (ends[1], radius), (ends[1], -radius)]
            draw.polygon([pixel(*(c[::-1] if turned else c)) for c in corners], fill=255)
        return picture

    if texture.kind == "dots":
        pattern = Image.new("L", extent)
        draw = ImageDraw.Draw(pattern)
        r = 0.3 * period * side
        for i in range(-count, count + 1):
            for k in range(-count, count + 1):
                x, y = pixel(i * period, (k + 0.5 * (i % 2)) * period)
                if -r < x < extent[0] + r and -r < y < extent[1] + r:
                    draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
    elif texture.kind == "checks":
        pattern = ImageChops.difference(bands(False), bands(True))  # exclusive or
    else:
        pattern = bands(texture.kind == "stripes")
    canvas.paste(_ink(texture.colour), (left, top, right, bottom), ImageChops.multiply(mask, pattern))
