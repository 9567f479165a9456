"""Which shapes form a version 2 puppet's chest decoration, cape, wings and tail?"""

from __future__ import annotations

import cmath
import math

from input_pipeline.puppets.character import Character
from input_pipeline.puppets.identity import SHADES, Colour, Texture, shaded
from input_pipeline.puppets.pose import Pose
from input_pipeline.puppets.raster import Group, Hull

SIDES = (("right", -1.0, SHADES["far"]), ("left", 1.0, SHADES["near"]))
"""Shades of the two sides; the far side is painted first."""


def limb(
    a: complex, b: complex, radius_a: float, radius_b: float, colour: Colour, texture: Texture | None = None
) -> Hull:
    """A limb from a to b, with a pattern along it."""
    return Hull(((a, radius_a), (b, radius_b)), colour, texture, unit(b - a))


def unit(direction: complex) -> complex:
    """The direction, with length 1."""
    return direction / abs(direction)


def _discs(radius: float, *centres: complex) -> list[tuple[complex, float]]:
    return [(centre, radius) for centre in centres]


def textured(character: Character, garment: str, shade: float) -> tuple[Colour, Texture]:
    """Colour and pattern of "shirt", "trousers" or "cape" in the given shade."""
    texture = character.textures[garment]
    return shaded(character.colours[garment], shade), Texture(
        texture.kind, shaded(texture.colour, shade), texture.period
    )


def chest(character: Character, neck: complex, waist: complex, across: complex) -> list[Group]:
    """The decoration on the shirt."""
    kind, colour = character.outfit.chest, character.colours["accent"]
    up = -1j * across
    length = abs(neck - waist)
    middle = 0.5 * (neck + waist)
    line = character.line(colour)
    if kind == "buttons":
        return [Group([Hull(((waist + k * (neck - waist), 0.012),), colour) for k in (0.15, 0.4, 0.65)], line)]
    if kind == "disc":
        return [Group([Hull(((middle, 0.25 * length),), colour)], line)]
    if kind == "star":
        r = 0.3 * length
        rays = [r * up * cmath.exp(2j * math.pi * k / 5) for k in range(5)]
        return [
            Group(
                [Hull(_discs(0.004, middle + ray, middle + 0.3j * ray, middle - 0.3j * ray), colour) for ray in rays],
                line,
            )
        ]
    if kind == "tie":
        knot, half = neck - 0.12 * length * up, 0.016 * across
        upper = Hull(_discs(0.008, knot, middle + half, middle - half), colour)
        return [
            Group([upper, Hull(_discs(0.008, middle + half, middle - half, waist + 0.1 * length * up), colour)], line)
        ]
    if kind == "bow":
        at = neck - 0.12 * length * up
        ends = [at + sign * 0.04 * across for sign in (-1, 1)]
        loops = [Hull(_discs(0.008, at, end + 0.014 * up, end - 0.014 * up), colour) for end in ends]
        return [Group([*loops, Hull(_discs(0.012, at), colour)], line)]
    if kind == "straps":
        asides = [sign * 0.55 * character.body.shoulder_half * across for sign in (-1, 1)]
        straps = [Hull(_discs(0.012, neck + aside - 0.02 * up, waist + aside), colour) for aside in asides]
        return [Group(straps, line)]
    if kind == "pocket":
        at, aside, high = waist + 0.12 * length * up, 0.03 * across, 0.03 * up
        corners = (at - aside, at + aside, at + aside + high, at - aside + high)
        return [Group([Hull(_discs(0.01, *corners), colour)], line)]
    return []


def cape(character: Character, j: dict[str, complex], pose: Pose) -> list[Group]:
    """A cape, behind everything: it hangs from the shoulders and swings against the lean."""
    length = character.outfit.cape
    if not length:
        return []
    body = character.body
    down = 1j * cmath.exp(1j * 0.6 * pose.lean)
    height = length * (body.torso + body.thigh + body.shin)
    middle = j["neck"] + height * down
    half = body.shoulder_half + 0.2 * height
    discs = [(j[f"{side}_shoulder"], body.arm_width * 0.6) for side, _, _ in SIDES]
    discs += [(middle + sign * half * down * 1j, 0.02) for sign in (-1.0, 1.0)]
    discs.append((middle + 0.03 * down, 0.03))
    cloth, texture = textured(character, "cape", 1.0)
    return [Group([Hull(discs, cloth, texture, down)], character.line(cloth))]


def tail(character: Character, j: dict[str, complex], pose: Pose) -> list[Group]:
    """A tail: from the pelvis to one side and up; it swings with the lean."""
    outfit = character.outfit
    if outfit.tail == "none":
        return []
    colour, tip = character.colours["hair"], character.colours["accent"]
    start = j["pelvis"] + 0.02j
    if outfit.tail == "ball":
        at = start + outfit.tail_side * (character.body.hip_half + 0.6 * character.body.leg_width)
        return [Group([Hull(((at, 0.05),), colour)], character.line(colour))]
    count, points = 7, [start]
    for k in range(count):
        # first sideways, then up, rotated by the lean
        angle = -0.25 + 1.9 * k / count + 1.2 * pose.lean * outfit.tail_side
        direction = complex(outfit.tail_side * math.cos(angle), -math.sin(angle))
        points.append(points[-1] + outfit.tail_length / count * 1.4 * direction)
    widths = {
        "thin": [0.022] * (count + 1),
        "arrow": [0.018] * (count + 1),
        "bushy": [0.025, 0.03, 0.038, 0.046, 0.052, 0.052, 0.042, 0.02],
    }[outfit.tail]
    hulls = [
        limb(points[k], points[k + 1], widths[k], widths[k + 1], tip if k >= count - 2 else colour)
        for k in range(count)
    ]
    if outfit.tail == "arrow":
        along = unit(points[-1] - points[-2])
        ends = (points[-1] + 0.06 * along, points[-1] + 0.045j * along, points[-1] - 0.045j * along)
        hulls.append(Hull([(end, 0.006) for end in ends], tip))
    return [Group(hulls, character.line(colour))]


def wings(character: Character, j: dict[str, complex], across: complex) -> list[Group]:
    """Wings, behind everything; they turn with the torso."""
    span = character.outfit.wings
    if not span:
        return []
    up, colour, groups = -1j * across, character.colours["accent"], []
    root = j["neck"] - 0.3 * character.body.torso * up
    for sign in (-1.0, 1.0):
        side = sign * across
        upper = _discs(0.03, root, root + span * (side + 0.75 * up), root + span * side)
        lower = _discs(0.03, root, root + span * (0.8 * side - 0.1 * up), root + span * (0.5 * side - 0.55 * up))
        groups.append(Group([Hull(lower, colour), Hull(upper, colour)], character.line(colour)))
    return groups
