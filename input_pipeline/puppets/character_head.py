"""Which shapes form a version 2 puppet's head: ears, hair, face and hat?

A point (x, y) of the head is measured from its centre in halves of its width and
height, x across and y up.
"""

from __future__ import annotations

from collections.abc import Callable

from input_pipeline.puppets.character import HAT_HEIGHT, Character
from input_pipeline.puppets.identity import Colour, shaded
from input_pipeline.puppets.raster import Group, Hull

WHITE, BLACK = (0.97, 0.97, 0.95), (0.07, 0.06, 0.09)
_PINK = (0.93, 0.5, 0.52)


class _Head:
    """Coordinates in one head."""

    def __init__(self, character: Character, middle: complex, up: complex) -> None:
        self.character, self.middle, self.up = character, middle, up
        self.across = up * 1j
        self.width, self.height = character.body.head_width, character.body.head_height
        self.unit = min(self.width, self.height)
        """The unit of features: the smaller half."""

    def at(self, x: float, y: float) -> complex:
        """The point (x, y) in the frame."""
        return self.middle + x * self.width * self.across + y * self.height * self.up

    def disc(self, x: float, y: float, radius: float) -> tuple[complex, float]:
        """`radius` in `unit`."""
        return self.at(x, y), radius * self.unit

    def hull(self, colour: Colour, *discs: tuple[float, float, float]) -> Hull:
        """The hull of discs (x, y, radius)."""
        return Hull([self.disc(*each) for each in discs], colour)

    def group(self, *hulls: Hull) -> Group:
        """A group with a contour for the first hull's colour."""
        return Group(hulls, self.character.line(hulls[0].colour))


def head_groups(character: Character, middle: complex, up: complex) -> tuple[list[Group], list[Group]]:
    """The shapes behind the body, and the head; `up` points to the crown."""
    h = _Head(character, middle, up)
    behind, ears = _back_hair(h), _ears(h)
    front = [*ears, h.group(Hull(outline(h), character.colours["skin"])), *_hair(h), *_face(h), *_hat(h)]
    return behind, front


def outline(h: _Head) -> list[tuple[complex, float]]:
    """The discs of the head's shape."""
    kind, w, t = h.character.outfit.head, h.width, h.height
    if kind in ("round", "tall", "wide", "egg", "pear"):
        # an oval is a hull of discs along its longer axis
        longer = abs(w - t)
        direction = h.across if w > t else h.up
        discs = [(h.middle + s * longer * direction, min(w, t)) for s in (-1.0, 1.0)]
        if kind == "egg":
            discs.append((h.at(0, 0.45), 0.55 * min(w, t)))
            discs += [h.disc(s * 0.25, -0.3, 0.78) for s in (-1.0, 1.0)]
        if kind == "pear":
            discs += [h.disc(s * 0.5, -0.4, 0.6) for s in (-1.0, 1.0)]
        return discs
    if kind == "box":
        r = 0.4 * h.unit
        return [(h.middle + a * (w - r) * h.across + b * (t - r) * h.up, r) for a in (-1, 1) for b in (-1, 1)]
    r = 0.5 * h.unit  # wedge: wide at the top, with a narrow chin
    return [(h.middle + a * (w - r) * h.across + (t - r) * h.up, r) for a in (-1, 1)] + [h.disc(0, -0.62, 0.38)]


def _ears(h: _Head) -> list[Group]:
    kind, skin, hair = h.character.outfit.ears, h.character.colours["skin"], h.character.colours["hair"]
    both: tuple[float, float] = (-1.0, 1.0)
    inner = shaded(skin, 0.75)
    if kind == "side":
        return [h.group(*(h.hull(skin, (s * 1.0, 0.0, 0.24)) for s in both))]
    if kind == "bear":
        outer = h.group(*(h.hull(skin, (s * 0.75, 0.8, 0.4)) for s in both))
        return [outer, Group([h.hull(inner, (s * 0.75, 0.8, 0.22)) for s in both], None)]
    if kind == "cat":
        outer = h.group(*(h.hull(skin, (s * 0.85, 1.25, 0.1), (s * 0.9, 0.3, 0.2), (s * 0.3, 0.8, 0.2)) for s in both))
        small = [h.hull(inner, (s * 0.82, 1.05, 0.05), (s * 0.8, 0.5, 0.1), (s * 0.5, 0.8, 0.1)) for s in both]
        return [outer, Group(small, None)]
    if kind == "rabbit":
        outer = h.group(*(h.hull(skin, (s * 0.4, 0.8, 0.22), (s * 0.55, 2.0, 0.26)) for s in both))
        return [outer, Group([h.hull(_PINK, (s * 0.43, 1.1, 0.08), (s * 0.54, 1.95, 0.13)) for s in both], None)]
    if kind == "dog":
        return [h.group(*(h.hull(hair, (s * 0.85, 0.5, 0.2), (s * 1.2, -0.35, 0.3)) for s in both))]
    if kind == "antennae":
        stalks = h.group(*(h.hull(skin, (s * 0.3, 0.8, 0.08), (s * 0.55, 1.65, 0.08)) for s in both))
        accent = h.character.colours["accent"]
        return [stalks, h.group(*(h.hull(accent, (s * 0.57, 1.7, 0.22)) for s in both))]
    if kind == "horns":
        accent = h.character.colours["accent"]
        horn = [h.hull(accent, (s * 0.35, 0.75, 0.1), (s * 0.85, 0.55, 0.12), (s * 0.95, 1.5, 0.05)) for s in both]
        return [h.group(*horn)]
    return []


def _back_hair(h: _Head) -> list[Group]:
    kind, colour = h.character.outfit.hair, h.character.colours["hair"]
    if kind == "long":
        low = [(s * 0.95, -1.7, 0.35) for s in (-1.0, 1.0)]
        return [h.group(h.hull(colour, *((s * 0.75, 0.35, 0.5) for s in (-1.0, 1.0)), *low))]
    if kind == "bob":
        return [h.group(h.hull(colour, *((s * 0.8, y, 0.42) for s in (-1.0, 1.0) for y in (0.35, -0.65))))]
    if kind == "afro":
        turns = ((0.0, 0.75, 0.7), (0.75, 0.45, 0.6), (-0.75, 0.45, 0.6), (0.9, -0.1, 0.45), (-0.9, -0.1, 0.45))
        return [h.group(*(h.hull(colour, each) for each in turns))]
    return []


def _hair(h: _Head) -> list[Group]:
    kind, colour = h.character.outfit.hair, h.character.colours["hair"]
    if kind == "bald":
        return []
    box = h.character.outfit.head in ("box", "wedge")
    rim = 0.74 if box else 0.66
    fringe = h.hull(
        colour, (-rim, 0.55, 0.28), (rim, 0.55, 0.28), (0.0, 0.78, 0.24), (0.4, 0.74, 0.22), (-0.4, 0.74, 0.22)
    )
    if kind == "spikes":
        spikes = [
            h.hull(colour, (x - 0.2, 0.65, 0.14), (x + 0.2, 0.65, 0.14), (1.35 * x, 1.35 - 0.35 * abs(x), 0.04))
            for x in (-0.7, -0.35, 0.0, 0.35, 0.7)
        ]
        return [h.group(*spikes, fringe)]
    if kind == "mohawk":
        return [h.group(*(h.hull(colour, (0.0, y, 0.2), (0.0, y + 0.3, 0.16)) for y in (0.75, 0.95, 1.1)))]
    if kind == "tuft":
        return [h.group(*(h.hull(colour, (0.0, 0.9, 0.12), (x, 1.25, 0.07)) for x in (-0.35, 0.0, 0.35)))]
    if kind == "bun":
        return [h.group(h.hull(colour, (0.0, 1.15, 0.36))), h.group(fringe)]
    locks = [h.hull(colour, (s * 0.9, 0.35, 0.2), (s * 0.95, -0.25, 0.16)) for s in (-1.0, 1.0)]
    return [h.group(*(locks if kind in ("bob", "long") else []), fringe)]


def _face(h: _Head) -> list[Group]:
    outfit, colours = h.character.outfit, h.character.colours
    skin = colours["skin"]
    dark_skin = sum(skin) < 1.1
    ink = WHITE if dark_skin else BLACK
    parts: list[Hull] = []
    groups: list[Group] = []
    if outfit.face == "beard":
        beard = h.hull(colours["hair"], *((s * 0.7, -0.35, 0.25) for s in (-1.0, 1.0)), (0.0, -0.85, 0.4))
        groups.append(h.group(beard))
    if outfit.face == "snout":
        light = tuple(c + 0.45 * (1 - c) for c in skin)
        parts += [
            h.hull((light[0], light[1], light[2]), (-0.22, -0.4, 0.3), (0.22, -0.4, 0.3)),
            h.hull(BLACK, (-0.09, -0.2, 0.11), (0.09, -0.2, 0.11)),
        ]
        ink = BLACK
    if outfit.face == "cheeks":
        parts += [h.hull(_PINK, (s * 0.6, -0.25, 0.17)) for s in (-1.0, 1.0)]
    parts += _mouth(h, ink)
    if outfit.face == "nose":
        parts.append(h.hull(shaded(skin, 0.7), (0.0, -0.12, 0.13)))
    if outfit.face == "moustache":
        parts += [h.hull(colours["hair"], (s * 0.08, -0.28, 0.12), (s * 0.45, -0.38, 0.07)) for s in (-1.0, 1.0)]
    if outfit.face == "glasses":
        frame = shaded(colours["accent"], 0.6)
        parts += [h.hull(frame, (-0.38, 0.12, 0.05), (0.38, 0.12, 0.05))]
        parts += [h.hull(frame, (s * 0.38, 0.12, 0.34)) for s in (-1.0, 1.0)]
        parts += [h.hull(WHITE, (s * 0.38, 0.12, 0.25)) for s in (-1.0, 1.0)]
    parts += _EYES["dots" if outfit.face == "glasses" else outfit.eyes](h, BLACK if outfit.face == "glasses" else ink)
    return [*groups, Group(parts, None)]


def _mouth(h: _Head, ink: Colour) -> list[Hull]:
    kind, y = h.character.outfit.mouth, -0.52
    if kind == "open":
        return [h.hull((0.55, 0.1, 0.14), (-0.24, y + 0.06, 0.07), (0.24, y + 0.06, 0.07), (0.0, y - 0.08, 0.15))]
    if kind == "o":
        return [h.hull((0.55, 0.1, 0.14), (0.0, y, 0.14))]
    if kind == "line":
        return [h.hull(ink, (-0.25, y, 0.05), (0.25, y, 0.05))]
    points = ((-0.34, y + 0.1), (-0.14, y - 0.04), (0.14, y - 0.04), (0.34, y + 0.1))
    return [h.hull(ink, (*points[k], 0.055), (*points[k + 1], 0.055)) for k in range(3)]


def _dots(h: _Head, ink: Colour) -> list[Hull]:
    return [h.hull(ink, (s * 0.38, 0.08, 0.13), (s * 0.38, 0.18, 0.13)) for s in (-1.0, 1.0)]


def _round(h: _Head, ink: Colour) -> list[Hull]:
    white = [h.hull(WHITE, (s * 0.38, 0.12, 0.25)) for s in (-1.0, 1.0)]
    return white + [h.hull(BLACK, (s * 0.36, 0.1, 0.13)) for s in (-1.0, 1.0)]


def _big(h: _Head, ink: Colour) -> list[Hull]:
    white = [h.hull(WHITE, (s * 0.4, 0.05, 0.26), (s * 0.4, 0.22, 0.26)) for s in (-1.0, 1.0)]
    iris = [h.hull(h.character.colours["accent"], (s * 0.38, 0.08, 0.2)) for s in (-1.0, 1.0)]
    return white + iris + [h.hull(BLACK, (s * 0.38, 0.08, 0.12)) for s in (-1.0, 1.0)]


def _sleepy(h: _Head, ink: Colour) -> list[Hull]:
    lid = shaded(h.character.colours["skin"], 0.72)
    return [
        *_round(h, ink),
        *(h.hull(lid, (s * 0.38 - 0.2, 0.26, 0.09), (s * 0.38 + 0.2, 0.26, 0.09)) for s in (-1.0, 1.0)),
    ]


def _single(h: _Head, ink: Colour) -> list[Hull]:
    iris = h.character.colours["accent"]
    return [h.hull(WHITE, (0.0, 0.15, 0.42)), h.hull(iris, (0.0, 0.12, 0.27)), h.hull(BLACK, (0.0, 0.12, 0.15))]


_EYES: dict[str, Callable[[_Head, Colour], list[Hull]]] = {
    "dots": _dots,
    "round": _round,
    "big": _big,
    "sleepy": _sleepy,
    "single": _single,
}


def _hat(h: _Head) -> list[Group]:
    kind = h.character.outfit.hat
    hat, accent = h.character.colours["hat"], h.character.colours["accent"]
    top = 1.0 + HAT_HEIGHT[kind]
    both: tuple[float, float] = (-1.0, 1.0)
    if kind == "top hat":
        tube = h.hull(hat, *((s * 0.6, y, 0.08) for s in both for y in (0.6, top)))
        band = h.hull(accent, *((s * 0.58, 0.72, 0.1) for s in both))
        return [h.group(tube), Group([band], None), h.group(h.hull(hat, *((s * 1.15, 0.55, 0.08) for s in both)))]
    if kind == "cone":
        cone = h.hull(hat, *((s * 0.75, 0.6, 0.1) for s in both), (0.0, top - 0.1, 0.05))
        dots = [h.hull(accent, (x, y, 0.11)) for x, y in ((-0.3, 0.8), (0.28, 0.95), (-0.05, 1.35))]
        return [h.group(cone), Group(dots, None), h.group(h.hull(accent, (0.0, top, 0.18)))]
    if kind == "beanie":
        dome = h.hull(hat, *((s * 0.72, 0.5, 0.3) for s in both), (0.0, 0.85, 0.38))
        brim = h.hull(accent, *((s * 0.88, 0.42, 0.15) for s in both))
        return [h.group(h.hull(accent, (0.0, top, 0.24))), h.group(dome), h.group(brim)]
    if kind == "cap":
        dome = h.hull(hat, *((s * 0.68, 0.5, 0.32) for s in both), (0.0, 0.75, 0.38))
        return [h.group(dome), h.group(h.hull(accent, (-0.3, 0.36, 0.1), (1.35, 0.36, 0.1)))]
    if kind == "crown":
        gold = (0.98, 0.8, 0.2) if h.character.dark_lines else hat
        points = [
            h.hull(gold, (x - 0.22, 0.6, 0.05), (x + 0.22, 0.6, 0.05), (1.15 * x, top, 0.06)) for x in (-0.6, 0.0, 0.6)
        ]
        band = h.hull(gold, *((s * 0.72, 0.62, 0.14) for s in both))
        return [h.group(*points, band), Group([h.hull(accent, (x, 0.63, 0.09)) for x in (-0.45, 0.0, 0.45)], None)]
    if kind == "brim":
        dome = h.hull(hat, *((s * 0.5, 0.6, 0.2) for s in both), *((s * 0.3, top - 0.2, 0.25) for s in both))
        band = h.hull(accent, *((s * 0.6, 0.68, 0.08) for s in both))
        return [h.group(dome), Group([band], None), h.group(h.hull(hat, *((s * 1.55, 0.52, 0.08) for s in both)))]
    if kind == "helmet":
        dome = h.hull(hat, *((s * 0.72, 0.45, 0.4) for s in both), (0.0, 0.72, 0.45))
        ridge = h.hull(accent, (0.0, 0.5, 0.12), (0.0, 1.08, 0.12))
        return [h.group(dome), Group([ridge], None)]
    return []
