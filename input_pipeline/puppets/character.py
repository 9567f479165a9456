"""What does a version 2 puppet look like? Body, head, clothes and colours all follow from a seed.

Version 1 (`identity.py`) has one body shape in many colours; here limbs, torso and head vary in
proportion, and hats, skirts, capes, tails and wings change the outline.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from input_pipeline.puppets.identity import SHADES, Background, Colour, Shape, Texture, distance, shaded

LEAST_CONTRAST = 0.4
"""The smallest RGB distance of the figure's colours from its background, before
the soft noise is added.
"""
LEAST_LINE_CONTRAST = 0.3
"""The same for contours."""
REACH = (0.72, 0.93)
"""The figure's extent as a share of the frame: its height with both arms up or its width with both
arms sideways, whichever is larger.
"""
TEXTURES = ("plain", "plain", "plain", "plain", "rings", "stripes", "checks", "dots")
_CHARACTER_STREAM = 3


@dataclass(frozen=True)
class Body:
    """Lengths, widths and radii as shares of the frame's side."""

    thigh: float
    shin: float
    torso: float  # from the pelvis to the shoulder line
    neck: float  # from the shoulder line to the chin
    upper_arm: float
    forearm: float
    shoulder_half: float  # from the centre to a shoulder joint
    hip_half: float
    head_width: float  # half the width
    head_height: float  # half the width
    arm_width: float
    wrist_width: float
    leg_width: float
    ankle_width: float
    belly: float  # radius of the belly's disc
    hand: float  # radius of the palm
    foot: float  # length from the ankle


@dataclass(frozen=True)
class Outfit:
    """Clothes, and the kinds of head, hands and shoes."""

    head: str
    ears: str
    hair: str
    hat: str
    eyes: str
    mouth: str
    face: str  # other facial features
    chest: str  # buttons, an emblem, a tie, ...
    sleeve: float  # share of the arm that is covered
    trouser: float  # share of the leg that is covered
    skirt: float  # length; 1 reaches the knee, 0: none
    skirt_flare: float
    cape: float  # length as a share of the shoulder line's height; 0: none
    tail: str
    tail_length: float
    tail_side: float  # -1 or 1
    wings: float  # wing span; 0: none
    hands: str
    shoes: str
    belt: bool
    scarf: bool


@dataclass(frozen=True)
class Character:
    """One puppet."""

    body: Body
    outfit: Outfit
    colours: Mapping[str, Colour]
    textures: Mapping[str, Texture]
    dark_lines: bool  # contours are darker than their part, otherwise lighter
    background: Background

    def line(self, colour: Colour) -> Colour:
        """The contour's colour for a part of that colour."""
        return contour(colour, self.dark_lines)


def contour(colour: Colour, dark: bool) -> Colour:
    """A darker or lighter shade of the colour."""
    r, g, b = (0.45 * c if dark else c + 0.6 * (1 - c) for c in colour)
    return r, g, b


def draw_character(seed: int, number: int) -> Character:
    """The character `number` (from 0) of the world `seed`.

    The same integers give the same puppet.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _CHARACTER_STREAM, number]))
    outfit = _outfit(rng)
    body = _body(rng, outfit)
    background, dark, colours = _palette(rng)
    textures = {
        garment: Texture(_one(rng, TEXTURES), colours[f"{garment}_second"], float(rng.uniform(0.045, 0.09)))
        for garment in ("shirt", "trousers", "cape")
    }
    return Character(body, outfit, colours, textures, dark, background)


def _one(rng: np.random.Generator, kinds: Sequence[str]) -> str:
    return kinds[int(rng.integers(len(kinds)))]


def _outfit(rng: np.random.Generator) -> Outfit:
    def maybe(share: float, low: float, high: float) -> float:
        chosen, value = rng.random() < share, rng.uniform(low, high)
        return float(value) if chosen else 0.0

    head = _one(rng, ("round", "round", "tall", "wide", "box", "egg", "pear", "wedge"))
    ears = _one(rng, ("side", "side", "none", "bear", "cat", "rabbit", "dog", "antennae", "horns"))
    hats = ("none", "top hat", "cone", "beanie", "cap", "crown", "brim", "helmet")
    hat = _one(rng, hats) if ears in ("side", "none", "dog") and rng.random() < 0.65 else "none"
    hair = _one(rng, ("cap", "bob", "long", "spikes", "bun", "afro", "mohawk", "bald", "tuft"))
    if hat != "none" and hair in ("spikes", "bun", "afro", "mohawk", "tuft"):
        hair = "bob" if rng.random() < 0.5 else "cap"
    skirt = maybe(0.25, 0.6, 1.25)
    tail = "none"
    if rng.random() < (0.75 if ears in ("bear", "cat", "rabbit", "dog", "horns") else 0.15):
        tail = {"bear": "ball", "rabbit": "ball", "horns": "arrow", "cat": "thin"}.get(ears, "bushy")
        tail = tail if rng.random() < 0.6 else _one(rng, ("thin", "bushy", "arrow"))
    return Outfit(
        head=head,
        ears=ears,
        hair=hair,
        hat=hat,
        eyes=_one(rng, ("dots", "dots", "round", "round", "big", "sleepy", "single")),
        mouth=_one(rng, ("smile", "smile", "open", "line", "o")),
        face=_one(rng, ("none", "nose", "nose", "snout", "cheeks", "beard", "moustache", "glasses")),
        chest=_one(rng, ("none", "buttons", "disc", "star", "tie", "bow", "straps", "pocket")),
        sleeve=float(rng.choice([0.0, 0.5, 0.55, 1.0, 1.0])),
        trouser=float(rng.choice([0.3, 0.55, 1.0, 1.0])) if not skirt else float(rng.choice([0.0, 1.0])),
        skirt=skirt,
        skirt_flare=float(rng.uniform(0.1, 0.5)),
        cape=maybe(0.16, 0.6, 0.95),
        tail=tail,
        tail_length=float(rng.uniform(0.16, 0.3)),
        tail_side=float(rng.choice([-1.0, 1.0])),
        wings=maybe(0.08, 0.14, 0.22),
        hands=_one(rng, ("fingers", "fingers", "mitten", "paw", "glove")),
        shoes=_one(rng, ("shoes", "shoes", "boots", "bare", "trainers")),
        belt=bool(rng.random() < 0.4),
        scarf=bool(rng.random() < 0.2),
    )


HAT_HEIGHT = {
    "none": 0.0,
    "top hat": 1.0,
    "cone": 1.35,
    "beanie": 0.4,
    "cap": 0.15,
    "crown": 0.5,
    "brim": 0.55,
    "helmet": 0.15,
}
"""The height of a hat above the crown, in halves of the head's height."""
EAR_HEIGHT = {"rabbit": 1.3, "cat": 0.45, "bear": 0.35, "antennae": 0.9, "horns": 0.6}


def _body(rng: np.random.Generator, outfit: Outfit) -> Body:
    def draw(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    head_height = draw(0.062, 0.125)
    aspect = {"round": 1.0, "tall": draw(0.68, 0.85), "wide": draw(1.2, 1.45)}.get(outfit.head, draw(0.85, 1.15))
    thigh, upper_arm = draw(0.065, 0.185), draw(0.065, 0.15)
    arm_width, leg_width = draw(0.05, 0.1), draw(0.06, 0.12)
    p = {
        "thigh": thigh,
        "shin": thigh * draw(0.8, 1.15),
        "torso": draw(0.12, 0.25),
        "neck": draw(-0.01, 0.035),
        "upper_arm": upper_arm,
        "forearm": upper_arm * draw(0.75, 1.2),
        "shoulder_half": draw(0.05, 0.135),
        "hip_half": draw(0.03, 0.085),
        "head_width": head_height * aspect,
        "head_height": head_height,
        "arm_width": arm_width,
        "wrist_width": max(0.045, arm_width * draw(0.6, 1.25)),
        "leg_width": leg_width,
        "ankle_width": max(0.05, leg_width * draw(0.6, 1.1)),
        "belly": draw(0.05, 0.085) if rng.random() < 0.6 else draw(0.085, 0.14),
        "hand": draw(0.03, 0.046),
        "foot": draw(0.035, 0.07),
    }
    arms = p["upper_arm"] + p["forearm"] + 1.6 * p["hand"]
    above = max(HAT_HEIGHT[outfit.hat], EAR_HEIGHT.get(outfit.ears, 0.0))
    head = p["neck"] + (2 + above) * head_height
    legs = p["thigh"] + p["shin"] + p["ankle_width"] / 2
    reach = max(legs + p["torso"] + max(arms, head), 2 * (p["shoulder_half"] + arms))
    scale = min(max(draw(0.85, 1.15), REACH[0] / reach), REACH[1] / reach)
    return Body(**{name: value * scale for name, value in p.items()})


APART = {
    "shirt": ("skin", 0.35),
    "shirt_second": ("shirt", 0.3),
    "trousers": ("shirt", 0.35),
    "trousers_second": ("trousers", 0.3),
    "shoes": ("trousers", 0.35),
    "hair": ("skin", 0.35),
    "hat": ("hair", 0.35),
    "cape": ("shirt", 0.35),
    "cape_second": ("cape", 0.3),
    "accent": ("shirt", 0.45),
}
"""For each colour, another one and the smallest distance between them, so that
parts can be distinguished.
"""


def _palette(rng: np.random.Generator) -> tuple[Background, bool, dict[str, Colour]]:
    """Draws a background, whether contours are dark, and colours that contrast with
    both; repeats until all do.
    """
    night = rng.random() < 0.35  # drawn only once: dark backgrounds succeed more often, so redrawing would favour them
    while True:
        skin, background = _skin(rng), _background(rng, night)
        middle = [0.5 * (a + b) for a, b in zip(background.start, background.end, strict=True)]
        behind = np.array([background.start, background.end, middle, *(shape.colour for shape in background.shapes)])
        dark = float(behind.mean()) > 0.5
        if not _stands_out(skin, behind, dark):
            continue
        chosen = {"skin": skin}
        for name, (other, least) in APART.items():
            drawn = (_vivid(rng) for _ in range(80))
            apart = (c for c in drawn if distance(c, chosen[other]) >= least and _stands_out(c, behind, dark))
            colour = next(apart, None)
            if colour is None:
                break
            chosen[name] = colour
        else:
            return background, dark, chosen


def _stands_out(colour: Colour, behind: np.ndarray, dark: bool) -> bool:
    """Whether the colour and its contour, in every shade, contrast with all of `behind` (N, 3)."""
    for shade in SHADES.values():
        seen = shaded(colour, shade)
        for each, least in ((seen, LEAST_CONTRAST), (contour(seen, dark), LEAST_LINE_CONTRAST)):
            if np.linalg.norm(behind - np.array(each), axis=1).min() < least:
                return False
    return True


def _vivid(rng: np.random.Generator) -> Colour:
    """A colour, mostly saturated, sometimes near black, grey or white."""
    if rng.random() < 0.15:
        r, g, b = np.clip(rng.choice([0.15, 0.55, 0.95]) + rng.uniform(-0.05, 0.05, 3), 0, 1)
        return float(r), float(g), float(b)
    return colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(0.45, 0.95)), float(rng.uniform(0.45, 1.0)))


def _skin(rng: np.random.Generator) -> Colour:
    """A human skin tone; every third puppet gets another colour."""
    if rng.random() < 0.35:
        return colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(0.25, 0.6)), float(rng.uniform(0.6, 0.98)))
    share = float(rng.random())
    tones = zip((0.36, 0.21, 0.13), (0.99, 0.84, 0.73), strict=True)
    r, g, b = (float(np.clip(a + (b - a) * share + rng.uniform(-0.04, 0.04), 0, 1)) for a, b in tones)
    return r, g, b


def _background(rng: np.random.Generator, night: bool) -> Background:
    """A muted background, light or dark, with soft shapes and usually a floor."""

    def near(spread: float) -> Colour:
        r, g, b = np.clip(base + rng.uniform(-spread, spread, 3), 0, 1)
        return float(r), float(g), float(b)

    value = rng.uniform(0.18, 0.34) if night else rng.uniform(0.42, 0.98)
    base = np.array(colorsys.hsv_to_rgb(float(rng.random()), float(rng.uniform(0.05, 0.4)), float(value)))
    start, end = near(0.1), near(0.1)
    shapes = [
        Shape(
            "ellipse" if rng.random() < 0.6 else "rectangle",
            (float(rng.random()), float(rng.random())),
            (float(rng.uniform(0.06, 0.25)), float(rng.uniform(0.06, 0.25))),
            near(0.16),
        )
        for _ in range(int(rng.integers(2, 6)))
    ]
    if rng.random() < 0.7:
        top = float(rng.uniform(0.7, 0.85))
        shapes.append(Shape("rectangle", (0.5, (1.1 + top) / 2), (0.7, (1.1 - top) / 2), near(0.16)))
    return Background(
        start=start,
        end=end,
        angle=float(rng.uniform(0, 2 * math.pi)),
        noise=float(rng.uniform(0.01, 0.035)),
        noise_seed=int(rng.integers(2**31)),
        shapes=tuple(shapes),
    )
