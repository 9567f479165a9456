"""What does a version 1 puppet look like?

Proportions, colours, textures and background follow from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Colour = tuple[float, float, float]
"""RGB, each in [0, 1]."""

LEAST_CONTRAST = 0.4
"""The smallest RGB distance of the figure's colours, in any shade, from its background, before
the soft noise is added.
"""
LARGEST_REACH = 0.95
"""The largest height with both arms straight up, and width with both arms
sideways, as shares of the frame.
"""
SHADES = {"near": 1.0, "far": 0.82}
"""The colours of near and far limbs are multiplied by these; the puppet's right limbs are the far
ones. So the sides can be distinguished.
"""
TEXTURES = ("plain", "rings", "stripes", "checks")
_IDENTITY_STREAM = 1


@dataclass(frozen=True)
class Texture:
    """The pattern of one garment, in the local axes of a body part, so it
    moves rigidly with the part.
    """

    kind: str  # one of TEXTURES; rings run across the part, stripes along it
    colour: Colour  # the second colour
    period: float  # share of the frame


@dataclass(frozen=True)
class Shape:
    """One blurred shape of the background."""

    kind: str  # "ellipse" or "rectangle"
    centre: tuple[float, float]
    radii: tuple[float, float]
    colour: Colour


@dataclass(frozen=True)
class Background:
    """A gradient between two colours, soft noise, and blurred shapes; it
    is constant over a clip.
    """

    start: Colour
    end: Colour
    angle: float  # direction of the gradient in radians
    noise: float  # amplitude
    noise_seed: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Identity:
    """One puppet. Lengths, widths and radii are shares of the frame's side."""

    head_radius: float
    neck: float  # from the shoulder line to the chin
    torso: float  # from the pelvis to the shoulder line
    shoulder_half: float  # from the centre to a shoulder joint
    hip_half: float
    upper_arm: float
    forearm: float
    thigh: float
    shin: float
    foot: float
    arm_width: float
    leg_width: float
    skin: Colour
    shirt: Colour
    trousers: Colour
    shoes: Colour
    hair: Colour
    hair_share: float  # hair's share of the head's height
    long_sleeves: bool
    long_trousers: bool
    shirt_texture: Texture
    trousers_texture: Texture
    background: Background


def distance(a: Colour, b: Colour) -> float:
    """The Euclidean distance of two RGB colours, in [0, sqrt(3)]."""
    return math.dist(a, b)


def shaded(colour: Colour, shade: float) -> Colour:
    """The colour, darkened; `shade` is in [0, 1]."""
    return colour[0] * shade, colour[1] * shade, colour[2] * shade


def draw_identity(seed: int, number: int) -> Identity:
    """The identity `number` (from 0) of the world `seed`.

    The same integers give the same puppet.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _IDENTITY_STREAM, number]))
    parts: dict[str, Any] = dict(_proportions(rng))
    background, colours = _palette(rng)
    for garment in ("shirt", "trousers"):
        kind = TEXTURES[int(rng.integers(len(TEXTURES)))]
        period = float(rng.uniform(0.06, 0.11))
        parts[f"{garment}_texture"] = Texture(kind, colours.pop(f"{garment}_second"), period)
    parts |= colours
    return Identity(
        **parts,
        hair_share=float(rng.uniform(0.25, 0.5)),
        long_sleeves=bool(rng.random() < 0.5),
        long_trousers=bool(rng.random() < 0.65),
        background=background,
    )


def _proportions(rng: np.random.Generator) -> dict[str, float]:
    def draw(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    p = {
        "head_radius": draw(0.088, 0.104),
        "neck": draw(0.012, 0.03),
        "torso": draw(0.2, 0.25),
        "shoulder_half": draw(0.085, 0.115),
        "hip_half": draw(0.045, 0.065),
        "upper_arm": draw(0.115, 0.14),
        "forearm": draw(0.11, 0.135),
        "thigh": draw(0.15, 0.18),
        "shin": draw(0.145, 0.175),
        "foot": draw(0.03, 0.045),
        "arm_width": draw(0.09, 0.11),
        "leg_width": draw(0.105, 0.13),
    }
    legs = p["thigh"] + p["shin"] + p["leg_width"] / 2
    arms = p["upper_arm"] + p["forearm"] + p["arm_width"] / 2
    reach = max(legs + p["torso"] + arms, 2 * (p["shoulder_half"] + arms))
    scale = min(draw(0.95, 1.08), LARGEST_REACH / reach)
    return {name: value * scale for name, value in p.items()}


def _palette(rng: np.random.Generator) -> tuple[Background, dict[str, Colour]]:
    """Draws a background and colours of the figure that contrast with it; repeats until all do."""
    while True:
        background = _background(rng)
        behind = [background.start, background.end, *(shape.colour for shape in background.shapes)]
        behind.append(_mix(background.start, background.end, 0.5))
        skin = _stand_out(rng, behind, _skin)
        if skin is None:
            continue
        chosen: dict[str, Colour] = {"skin": skin}
        # a garment must contrast with the skin, a pattern with its garment, hair with the face
        apart = {
            "shirt": "skin",
            "shirt_second": "shirt",
            "trousers": "shirt",
            "trousers_second": "trousers",
            "shoes": "trousers",
            "hair": "skin",
        }
        for name, other in apart.items():
            colour = _stand_out(rng, behind, _any_colour, chosen[other])
            if colour is None:
                break
            chosen[name] = colour
        else:
            return background, chosen


def _stand_out(
    rng: np.random.Generator,
    behind: list[Colour],
    draw: Callable[[np.random.Generator], Colour],
    other: Colour | None = None,
) -> Colour | None:
    """A colour that contrasts with all of `behind` and with `other`; None if none is found."""
    for _ in range(60):
        colour = draw(rng)
        shades = [shaded(colour, shade) for shade in SHADES.values()]
        if min(distance(shade, b) for shade in shades for b in behind) < LEAST_CONTRAST:
            continue
        if other is None or distance(colour, other) > 0.3:
            return colour
    return None


def _any_colour(rng: np.random.Generator) -> Colour:
    r, g, b = rng.uniform(0.02, 0.98, 3)
    return float(r), float(g), float(b)


def _skin(rng: np.random.Generator) -> Colour:
    tone = _mix((0.27, 0.16, 0.1), (0.98, 0.84, 0.74), float(rng.random()))
    r, g, b = np.clip(np.array(tone) + rng.uniform(-0.05, 0.05, 3), 0, 1)
    return float(r), float(g), float(b)


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    return (
        a[0] + (b[0] - a[0]) * share,
        a[1] + (b[1] - a[1]) * share,
        a[2] + (b[2] - a[2]) * share,
    )


def _near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    r, g, b = np.clip(np.array(colour) + rng.uniform(-spread, spread, 3), 0, 1)
    return float(r), float(g), float(b)


def _background(rng: np.random.Generator) -> Background:
    base = _any_colour(rng)
    shapes = []
    for _ in range(int(rng.integers(3, 7))):
        x, y = rng.uniform(0, 1, 2)
        rx, ry = rng.uniform(0.06, 0.25, 2)
        kind = "ellipse" if rng.random() < 0.5 else "rectangle"
        shapes.append(Shape(kind, (float(x), float(y)), (float(rx), float(ry)), _near(rng, base, 0.2)))
    return Background(
        start=_near(rng, base, 0.15),
        end=_near(rng, base, 0.15),
        angle=float(rng.uniform(0, 2 * math.pi)),
        noise=float(rng.uniform(0.02, 0.05)),
        noise_seed=int(rng.integers(2**31)),
        shapes=tuple(shapes),
    )
