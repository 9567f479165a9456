"""Where are a version 2 puppet's joints in a pose, and which shapes form its body and clothes?

Points are complex numbers: x to the right, y down, as shares of the frame's side. Every shape
is a convex hull of discs.
"""

from __future__ import annotations

import cmath
import math

from input_pipeline.puppets.character import Character
from input_pipeline.puppets.character_clothes import SIDES, cape, chest, limb, tail, textured, unit, wings
from input_pipeline.puppets.character_head import head_groups
from input_pipeline.puppets.identity import shaded
from input_pipeline.puppets.pose import USUAL_LEG_BONE, Pose
from input_pipeline.puppets.raster import Group, Hull


def skeleton(character: Character, pose: Pose) -> dict[str, complex]:
    """The joints by name. The pose determines the ground, so long legs raise the pelvis."""
    body = character.body
    drops = [0.0, 0.0]  # pelvis to ankles, for average legs and for these
    for side, _, _ in SIDES:
        hip, knee = getattr(pose, f"{side}_hip"), getattr(pose, f"{side}_knee")
        drops[0] += USUAL_LEG_BONE * (math.cos(hip) + math.cos(hip + knee)) / 2
        drops[1] += (body.thigh * math.cos(hip) + body.shin * math.cos(hip + knee)) / 2
    pelvis = complex(pose.root[0], pose.root[1] + drops[0] - drops[1])
    across = cmath.exp(1j * pose.lean)
    up = -1j * across
    neck = pelvis + body.torso * up
    tilted = -1j * cmath.exp(1j * (pose.lean + pose.neck))
    joints = {"pelvis": pelvis, "neck": neck, "head": neck + (body.neck + body.head_height) * tilted}
    for side, sign, _ in SIDES:
        angle, bend = getattr(pose, f"{side}_shoulder"), getattr(pose, f"{side}_elbow")
        at = neck + sign * body.shoulder_half * across - 0.15 * body.torso * up
        joints[f"{side}_shoulder"] = at
        for name, length, turn in (("elbow", body.upper_arm, angle), ("wrist", body.forearm, angle + bend)):
            at += length * (sign * math.sin(turn) * across - math.cos(turn) * up)
            joints[f"{side}_{name}"] = at
        angle, bend = getattr(pose, f"{side}_hip"), getattr(pose, f"{side}_knee")
        at = pelvis + sign * body.hip_half
        joints[f"{side}_hip"] = at
        for name, length, turn in (("knee", body.thigh, angle), ("ankle", body.shin, angle + bend)):
            at += length * complex(sign * math.sin(turn), math.cos(turn))
            joints[f"{side}_{name}"] = at
    return joints


def figure(character: Character, pose: Pose) -> tuple[dict[str, complex], list[Group]]:
    """The joints, and the painted shapes from back to front."""
    joints = skeleton(character, pose)
    tilt = cmath.exp(1j * (pose.lean + pose.neck))
    behind_head, head = head_groups(character, joints["head"], -1j * tilt)
    across = cmath.exp(1j * pose.lean)
    groups = [*wings(character, joints, across), *cape(character, joints, pose), *tail(character, joints, pose)]
    groups += behind_head
    for side, sign, shade in SIDES:
        groups += _leg(character, joints, side, sign, shade)
    groups += _torso(character, joints, across)
    groups += head
    for side, sign, shade in SIDES:
        groups += _arm(character, joints, side, sign, shade)
    return joints, groups


def _covered(
    points: tuple[complex, complex, complex], radii: tuple[float, float, float], share: float
) -> list[tuple[complex, complex, float, float]]:
    """The parts of a two-bone limb that are covered by a sleeve over `share` of its length."""
    pieces = []
    for k in range(2):
        end = min(1.0, 2 * share - k)
        if end > 0.05:
            a, b, ra, rb = points[k], points[k + 1], radii[k], radii[k + 1]
            pieces.append((a, a + end * (b - a), ra, ra + end * (rb - ra)))
    return pieces


def _leg(character: Character, j: dict[str, complex], side: str, sign: float, shade: float) -> list[Group]:
    body, outfit = character.body, character.outfit
    points = (j[f"{side}_hip"], j[f"{side}_knee"], j[f"{side}_ankle"])
    radii = (body.leg_width * 0.53, body.leg_width * 0.48, body.ankle_width * 0.5)
    skin = shaded(character.colours["skin"], shade)
    hulls = [limb(points[k], points[k + 1], radii[k] * 0.94, radii[k + 1] * 0.94, skin) for k in range(2)]
    cloth, texture = textured(character, "trousers", shade)
    hulls += [limb(*piece, cloth, texture) for piece in _covered(points, radii, outfit.trouser)]
    groups = [Group(hulls, character.line(cloth if outfit.trouser > 0.5 else skin))]
    return groups + _shoe(character, points, radii, sign, shade)


def _shoe(
    character: Character, leg: tuple[complex, ...], radii: tuple[float, ...], sign: float, shade: float
) -> list[Group]:
    body, kind, ankle = character.body, character.outfit.shoes, leg[2]
    r = max(0.55 * body.ankle_width, 0.028)
    colour = shaded(character.colours["skin" if kind == "bare" else "shoes"], shade)
    toes = ankle + complex(sign * body.foot, 0.12 * body.foot)
    line = character.line(colour)
    hulls = [Hull(((ankle, r), (toes, r * 0.78)), colour)]
    if kind == "boots":
        top = ankle + 0.5 * (leg[1] - ankle)
        hulls.insert(0, limb(ankle, top, r, max(r, 0.52 * (radii[1] + radii[2])), colour))
    groups = [Group(hulls, line)]
    low = 0.72j * r
    if kind in ("shoes", "trainers", "boots"):
        sole = (0.95, 0.95, 0.92) if kind == "trainers" else line
        flat = ((ankle + low, r * 0.26), (toes + 0.72 * low, r * 0.26))
        groups.append(Group([Hull(flat, shaded(sole, shade))], None))
    if kind == "trainers":
        middle = 0.5 * (ankle + toes) - 0.35j * r
        groups.append(
            Group([Hull(((middle - r * 0.3, r * 0.13), (middle + r * 0.3, r * 0.13)), shaded(sole, shade))], None)
        )
    if kind == "bare":
        toe = [Hull(((toes + complex(sign * 0.55, 0.45 - 0.35 * k) * r, r * 0.24),), colour) for k in range(3)]
        groups.append(Group(toe, line))
    return groups


def _arm(character: Character, j: dict[str, complex], side: str, sign: float, shade: float) -> list[Group]:
    body, outfit = character.body, character.outfit
    points = (j[f"{side}_shoulder"], j[f"{side}_elbow"], j[f"{side}_wrist"])
    radii = (body.arm_width * 0.52, body.arm_width * 0.47, body.wrist_width * 0.45)
    skin = shaded(character.colours["skin"], shade)
    hulls = [limb(points[k], points[k + 1], radii[k] * 0.94, radii[k + 1] * 0.94, skin) for k in range(2)]
    cloth, texture = textured(character, "shirt", shade)
    hulls += [limb(*piece, cloth, texture) for piece in _covered(points, radii, outfit.sleeve)]
    arm = Group(hulls, character.line(cloth if outfit.sleeve > 0.5 else skin))
    return [arm, _hand(character, points, sign, shade)]


def _hand(character: Character, arm: tuple[complex, ...], sign: float, shade: float) -> Group:
    """A hand, in front of the sleeve.

    When the arm hangs, the thumb points in the viewing direction.
    """
    body, kind = character.body, character.outfit.hands
    wrist, along = arm[2], unit(arm[2] - arm[1])
    aside = along * 1j * sign
    r = body.hand
    colour = shaded(character.colours["accent" if kind == "glove" else "skin"], shade)
    palm = wrist + 0.25 * r * along
    hulls = [Hull(((palm, r), (palm + 0.35 * r * along, r * 0.9)), colour)]
    thumb = palm + r * (0.55 * along + 1.0 * aside)
    hulls.append(Hull(((palm + 0.5 * r * aside, r * 0.34), (thumb, r * 0.3)), colour))
    if kind in ("fingers", "glove"):
        for k in (-0.62, 0.0, 0.62):
            root = palm + r * (0.7 * along + 0.9 * k * aside)
            hulls.append(Hull(((root, r * 0.3), (root + r * (0.85 * along + 0.35 * k * aside), r * 0.27)), colour))
    elif kind == "mitten":
        hulls.append(Hull(((palm, r * 0.95), (palm + 0.9 * r * along, r * 0.72)), colour))
    elif kind == "paw":
        pads = [palm + r * (0.75 * along + 0.55 * k * aside) for k in (-1.0, 0.0, 1.0)]
        hulls += [Hull(((pad, r * 0.42),), colour) for pad in pads]
    return Group(hulls, character.line(colour))


def _torso(character: Character, j: dict[str, complex], across: complex) -> list[Group]:
    body, outfit = character.body, character.outfit
    up = -1j * across
    cloth, texture = textured(character, "shirt", 1.0)
    pants, pattern = textured(character, "trousers", 1.0)
    skin = shaded(character.colours["skin"], 0.92)
    leg, arm = body.leg_width * 0.53, body.arm_width * 0.54
    waist = j["pelvis"] + 0.22 * body.torso * up
    hips = (j["left_hip"], j["right_hip"])
    throat = 0.4 * min(body.head_width, body.head_height)
    groups = [Group([limb(j["neck"] - 0.1 * body.torso * up, j["head"], throat, throat, skin)], character.line(skin))]
    seat = Hull((*((hip, leg) for hip in hips), (waist, leg * 0.9)), pants, pattern, -up)
    skirt = []
    if outfit.skirt:
        skirt = [Hull(_hem(character, j, waist), pants, pattern, 1j)]
    shoulders = ((j["left_shoulder"], arm), (j["right_shoulder"], arm))
    belly = (j["pelvis"] + (0.2 * body.torso + 0.25 * body.belly) * up, body.belly)
    sides = tuple((waist + sign * 0.7 * body.hip_half * across, leg * 0.92) for sign in (-1.0, 1.0))
    shirt = Hull((*shoulders, belly, *sides), cloth, texture, -up)
    groups.append(Group([seat], character.line(pants)))
    groups.append(Group([shirt], character.line(cloth)))
    if skirt:
        groups.append(Group(skirt, character.line(pants)))
    width = max(body.belly, 0.7 * body.hip_half + leg * 0.92)
    if outfit.belt:
        belt = character.colours["accent"]
        at = waist - 0.06 * body.torso * up
        band = Hull(((at - 0.82 * width * across, 0.013), (at + 0.82 * width * across, 0.013)), belt)
        buckle = Hull(((at - 0.012 * across, 0.014), (at + 0.012 * across, 0.014)), (0.95, 0.82, 0.3))
        groups += [Group([band], character.line(belt)), Group([buckle], character.line(belt))]
    groups += chest(character, j["neck"], waist, across)
    if outfit.scarf:
        colour = character.colours["accent"]
        at, half = j["neck"] + 0.01 * up, 1.15 * throat + 0.012
        ring = Hull(((at - half * across, 0.022), (at + half * across, 0.022)), colour)
        end = Hull(((at + half * across, 0.02), (at + 0.9 * half * across - 0.5 * body.torso * up, 0.024)), colour)
        groups.append(Group([end, ring], character.line(colour)))
    return groups


def _hem(character: Character, j: dict[str, complex], waist: complex) -> list[tuple[complex, float]]:
    """A skirt: it hangs from the waist and follows the thighs, and below the knees the shins."""
    body, outfit = character.body, character.outfit
    r = 0.02
    discs = [(waist + sign * (0.6 * body.hip_half + body.leg_width * 0.3), 0.03) for sign in (-1.0, 1.0)]
    for side, sign, _ in SIDES:
        hip, knee, ankle = (j[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        first, second = min(1.0, outfit.skirt), max(0.0, outfit.skirt - 1)
        at = hip + first * (knee - hip) + second * (ankle - knee)
        flare = sign * (body.leg_width * 0.5 + outfit.skirt_flare * 0.5 * outfit.skirt * body.thigh)
        discs += [(at + flare, r), (hip + sign * body.leg_width * 0.25, body.leg_width * 0.4)]
    return discs
