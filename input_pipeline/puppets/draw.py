"""How is a puppet in a pose drawn, together with its true silhouette and joints?"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from input_pipeline.puppets.character import Character
from input_pipeline.puppets.character_body import figure
from input_pipeline.puppets.identity import SHADES, Background, Colour, Identity, Texture, shaded
from input_pipeline.puppets.pose import Pose
from input_pipeline.puppets.raster import Shapes
from maskanim_jax.errors import UserError

JOINT_NAMES = (
    "head",
    "neck",
    "pelvis",
    *(f"{side}_{joint}" for side in ("left", "right") for joint in ("shoulder", "elbow", "wrist")),
    *(f"{side}_{joint}" for side in ("left", "right") for joint in ("hip", "knee", "ankle")),
)
SIZES = (32, 512)
"""Smallest and largest side of a frame in pixels."""
MARGIN = 0.02
"""Free border around the figure, as a share of the frame."""
_CANVAS = 512  # small frames are drawn at this side and averaged; larger frames at 4 times their side
_TURNS = np.linspace(0, 2 * math.pi, 48, endpoint=False)
_DIRECTIONS = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)


class Rendering(NamedTuple):
    """One drawn frame and its ground truth.

    Pixel centres have integer coordinates; the top left is (0, 0).
    """

    frame: np.ndarray  # (H, W, 3) uint8 RGB
    silhouette: np.ndarray  # (H, W) uint8, how much of the pixel the figure covers; 255 is all
    joints: np.ndarray  # (J, 2) float32 pixels, x then y, in the order of JOINT_NAMES


@dataclass
class _Part:
    """The convex hull of discs, in one colour or texture; `axis` is the local
    direction of the texture.
    """

    centres: np.ndarray  # (D, 2), shares of the frame
    radii: np.ndarray  # (D,)
    colour: Colour
    axis: np.ndarray = field(default_factory=lambda: np.array([0.0, 1.0]))
    texture: Texture | None = None

    def outline(self, shrink: float) -> np.ndarray:
        """(48, 2): the farthest point of all discs in each direction, with
        radii reduced by `shrink`.
        """
        radii = self.radii - shrink
        reach = self.centres @ _DIRECTIONS.T + radii[:, None]
        farthest = reach.argmax(axis=0)
        return self.centres[farthest] + radii[farthest, None] * _DIRECTIONS


def render(identity: Identity | Character, pose: Pose, size: int) -> Rendering:
    """Draws one frame of `size` x `size` pixels; the layout does not depend on the size.

    Raises UserError when the size is outside SIZES.
    """
    behind = background(identity, size)
    factor = max(4, _CANVAS // size)
    side = size * factor
    if isinstance(identity, Character):
        joints, painted = _painted_character(identity, pose, side)
        reduced = np.asarray(painted.reduce(factor))
        figure_colours, silhouette = reduced[..., :3].astype(np.float32), reduced[..., 3].copy()
        return _composed(behind, figure_colours, silhouette, joints, size)
    joints, parts = _figure(identity, pose)
    colours, cover = Image.new("RGB", (side, side)), Image.new("L", (side, side))
    for part in parts:
        _paint(part, colours, cover)
    # black outside, since colours are multiplied by coverage
    return _composed(
        behind, np.asarray(colours.reduce(factor), np.float32), np.asarray(cover.reduce(factor)), joints, size
    )


def _composed(
    behind: np.ndarray, figure: np.ndarray, silhouette: np.ndarray, joints: np.ndarray, size: int
) -> Rendering:
    share = silhouette[..., None].astype(np.float32) / 255
    frame = np.rint(behind * (1 - share) + figure).clip(0, 255).astype(np.uint8)
    return Rendering(frame, silhouette, (joints * size - 0.5).astype(np.float32))


def _painted_character(character: Character, pose: Pose, side: int) -> tuple[np.ndarray, Image.Image]:
    """Joints (J, 2) as shares of the frame, and the painted figure, moved
    inside the frame if needed.
    """
    joints, groups = figure(character, pose)
    shapes = Shapes(groups)
    low, high = shapes.bounds()
    shift = complex(
        max(MARGIN - low.real, 0) - max(high.real - (1 - MARGIN), 0),
        max(MARGIN - low.imag, 0) - max(high.imag - (1 - MARGIN), 0),
    )
    shapes.move(shift)
    places = np.array([joints[name] + shift for name in JOINT_NAMES])
    return np.stack([places.real, places.imag], axis=1), shapes.paint(side)


def background(identity: Identity | Character, size: int) -> np.ndarray:
    """The frame without the figure: (H, W, 3) uint8, read-only.

    Raises UserError for a size outside SIZES.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"puppets are drawn from {SIZES[0]} to {SIZES[1]} pixels, not {size}: choose a size between.")
    return _background(identity.background, size)


@functools.lru_cache(maxsize=64)
def _background(b: Background, size: int) -> np.ndarray:
    # always drawn at one size, so that all frame sizes look the same
    grid = np.linspace(-0.5, 0.5, _CANVAS)
    share = np.clip(0.5 + grid[None, :] * math.cos(b.angle) + grid[:, None] * math.sin(b.angle), 0, 1)[..., None]
    picture = Image.fromarray(np.uint8(255 * ((1 - share) * np.array(b.start) + share * np.array(b.end))))
    draw = ImageDraw.Draw(picture)
    for shape in b.shapes:
        (x, y), (rx, ry) = shape.centre, shape.radii
        box = [round(v * _CANVAS) for v in (x - rx, y - ry, x + rx, y + ry)]
        (draw.ellipse if shape.kind == "ellipse" else draw.rectangle)(box, fill=_bytes(shape.colour))
    picture = picture.filter(ImageFilter.GaussianBlur(0.02 * _CANVAS))
    rng = np.random.default_rng(np.random.SeedSequence(b.noise_seed))
    coarse = np.uint8(np.rint(rng.uniform(0, 255, (8, 8, 3))))
    noise = np.asarray(Image.fromarray(coarse).resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC), np.float32)
    noisy = np.asarray(picture, np.float32) + b.noise * (2 * noise - 255)
    picture = Image.fromarray(np.uint8(np.rint(noisy.clip(0, 255))))
    result = np.array(picture.resize((size, size), Image.Resampling.BOX))
    result.flags.writeable = False
    return result


def _bytes(colour: Colour, shade: float = 1.0) -> tuple[int, int, int]:
    r, g, b = (round(255 * shade * c) for c in colour)
    return r, g, b


def _figure(identity: Identity, pose: Pose) -> tuple[np.ndarray, list[_Part]]:
    """Joints (J, 2) as shares of the frame, and parts from back to front, moved
    inside the frame if needed.
    """
    joints = _skeleton(identity, pose)
    parts = _parts(identity, pose, joints)
    low = np.min([(p.centres - p.radii[:, None]).min(0) for p in parts], axis=0)
    high = np.max([(p.centres + p.radii[:, None]).max(0) for p in parts], axis=0)
    shift = np.maximum(MARGIN - low, 0) - np.maximum(high - (1 - MARGIN), 0)
    for part in parts:
        part.centres = part.centres + shift
    return np.stack([joints[name] for name in JOINT_NAMES]) + shift, parts


def _skeleton(identity: Identity, pose: Pose) -> dict[str, np.ndarray]:
    up = np.array([math.sin(pose.lean), -math.cos(pose.lean)])
    across = np.array([math.cos(pose.lean), math.sin(pose.lean)])
    pelvis = np.array(pose.root)
    neck = pelvis + identity.torso * up
    tilt = pose.lean + pose.neck
    head = neck + (identity.neck + identity.head_radius) * np.array([math.sin(tilt), -math.cos(tilt)])
    joints = {"pelvis": pelvis, "neck": neck, "head": head}
    for side, sign in (("left", 1.0), ("right", -1.0)):
        # arms hang from the leaning torso, legs stand upright
        angle, bend = getattr(pose, f"{side}_shoulder"), getattr(pose, f"{side}_elbow")
        at = neck + sign * identity.shoulder_half * across - 0.15 * identity.torso * up
        joints[f"{side}_shoulder"] = at
        for name, length, turn in (
            ("elbow", identity.upper_arm, angle),
            ("wrist", identity.forearm, angle + bend),
        ):
            at = at + length * (sign * math.sin(turn) * across - math.cos(turn) * up)
            joints[f"{side}_{name}"] = at
        angle, bend = getattr(pose, f"{side}_hip"), getattr(pose, f"{side}_knee")
        at = pelvis + sign * identity.hip_half * across
        joints[f"{side}_hip"] = at
        for name, length, turn in (("knee", identity.thigh, angle), ("ankle", identity.shin, angle + bend)):
            at = at + length * np.array([sign * math.sin(turn), math.cos(turn)])
            joints[f"{side}_{name}"] = at
    return joints


def _parts(identity: Identity, pose: Pose, joints: dict[str, np.ndarray]) -> list[_Part]:
    i, j = identity, joints
    parts = []
    arm, leg = i.arm_width / 2, i.leg_width / 2
    for side, sign, shade in (("right", -1.0, SHADES["far"]), ("left", 1.0, SHADES["near"])):
        hip, knee, ankle = (j[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        toes = ankle + np.array([sign * i.foot, 0.1 * i.foot])
        shin = (i.trousers, i.trousers_texture) if i.long_trousers else (i.skin, None)
        parts.append(_limb(knee, ankle, leg * 0.95, leg * 0.8, shin[0], shade, shin[1]))
        parts.append(_limb(hip, knee, leg * 1.05, leg, i.trousers, shade, i.trousers_texture))
        parts.append(_limb(ankle, toes, leg * 0.82, leg * 0.72, i.shoes, shade))
    tilt = pose.lean + pose.neck
    up, across = np.array([math.sin(tilt), -math.cos(tilt)]), np.array([math.cos(tilt), math.sin(tilt)])
    parts.append(_limb(j["neck"], j["head"], i.head_radius * 0.45, i.head_radius * 0.45, i.skin, 0.92))
    shoulders, hips = (j["left_shoulder"], j["right_shoulder"]), (j["left_hip"], j["right_hip"])
    axis = (j["neck"] - j["pelvis"]) / np.linalg.norm(j["neck"] - j["pelvis"])
    belt = 0.12 * j["neck"] + 0.88 * j["pelvis"]
    seat = np.stack([*hips, belt])
    parts.append(_Part(seat, leg * np.array([1.05, 1.05, 0.9]), i.trousers, axis, i.trousers_texture))
    chest = np.stack([*shoulders, *(hip + 0.2 * i.torso * axis for hip in hips)])
    parts.append(_Part(chest, arm * np.array([1.05, 1.05, 1.0, 1.0]), i.shirt, axis, i.shirt_texture))
    parts.append(_Part(j["head"][None], np.array([i.head_radius]), i.skin))
    parts.append(_hair(i, j["head"], up, across))
    eyes = (0.05, 0.05, 0.08) if sum(i.skin) > 1.2 else (0.95, 0.95, 0.9)
    for sign in (-1.0, 1.0):
        eye = j["head"] + i.head_radius * (0.38 * sign * across - 0.12 * up)
        parts.append(_Part(eye[None], np.array([i.head_radius * 0.13]), eyes))
    for side, shade in (("right", SHADES["far"]), ("left", SHADES["near"])):
        shoulder, elbow, wrist = (j[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
        sleeve = (i.shirt, i.shirt_texture) if i.long_sleeves else (i.skin, None)
        parts.append(_limb(shoulder, elbow, arm * 1.02, arm, i.shirt, shade, i.shirt_texture))
        parts.append(_limb(elbow, wrist, arm * 0.96, arm * 0.85, sleeve[0], shade, sleeve[1]))
        parts.append(_Part(wrist[None], np.array([arm]), shaded(i.skin, shade)))
    return parts


def _hair(i: Identity, head: np.ndarray, up: np.ndarray, across: np.ndarray) -> _Part:
    # a band of small discs along the upper rim: its hull is a cap within the head
    rim, thick = i.head_radius * 0.8, i.head_radius * 0.2
    half = math.acos(1 - 2 * i.hair_share)
    turns = np.linspace(-half, half, 9)
    centres = head + rim * (np.cos(turns)[:, None] * up + np.sin(turns)[:, None] * across)
    return _Part(centres, np.full(9, thick), i.hair)


def _limb(
    a: np.ndarray,
    b: np.ndarray,
    radius_a: float,
    radius_b: float,
    colour: Colour,
    shade: float,
    texture: Texture | None = None,
) -> _Part:
    if texture is not None:
        texture = Texture(texture.kind, shaded(texture.colour, shade), texture.period)
    axis = (b - a) / np.linalg.norm(b - a)
    return _Part(np.stack([a, b]), np.array([radius_a, radius_b]), shaded(colour, shade), axis, texture)


def _paint(part: _Part, colours: Image.Image, cover: Image.Image) -> None:
    side = cover.width
    # Pillow also fills the pixels under the edge: half a pixel more on all sides
    outline = np.rint(part.outline(0.5 / side) * side - 0.5).astype(int)
    left, top = (int(v) for v in outline.min(0))
    right, bottom = (int(v) for v in outline.max(0))
    box = (left, top, right + 1, bottom + 1)
    mask = Image.new("L", (right + 1 - left, bottom + 1 - top))
    ImageDraw.Draw(mask).polygon((outline - (left, top)).ravel().tolist(), fill=255)
    colours.paste(_bytes(part.colour), box, mask)
    cover.paste(255, box, mask)
    if part.texture is not None and part.texture.kind != "plain":
        pattern = _pattern(part, mask.size, np.array([left, top]), side)
        colours.paste(_bytes(part.texture.colour), box, ImageChops.multiply(mask, pattern))


def _pattern(part: _Part, extent: tuple[int, int], corner: np.ndarray, side: int) -> Image.Image:
    """The mask of the second colour: bands in the part's own axes, from its
    first joint or its centre.
    """
    assert part.texture is not None
    along, across = part.axis, np.array([-part.axis[1], part.axis[0]])
    origin = part.centres[0] if len(part.centres) == 2 else part.centres.mean(0)
    period, far = part.texture.period, 0.6

    def bands(direction: np.ndarray, other: np.ndarray) -> Image.Image:
        picture = Image.new("L", extent)
        draw = ImageDraw.Draw(picture)
        count = math.ceil(0.35 / period)
        for k in range(-count, count + 1):
            near, end = (k - 0.25) * period + 0.5 / side, (k + 0.25) * period - 0.5 / side
            corners = [
                origin + near * direction - far * other,
                origin + near * direction + far * other,
                origin + end * direction + far * other,
                origin + end * direction - far * other,
            ]
            points = np.rint(np.stack(corners) * side - 0.5 - corner).astype(int)
            draw.polygon(points.ravel().tolist(), fill=255)
        return picture

    if part.texture.kind == "rings":
        return bands(along, across)
    if part.texture.kind == "stripes":
        return bands(across, along)
    first, second = bands(along, across), bands(across, along)
    return ImageChops.difference(first, second)  # exclusive or: checks
