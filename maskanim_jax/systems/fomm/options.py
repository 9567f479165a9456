"""Which options does animation with FOMM have?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from maskanim_jax.errors import UserError
from maskanim_jax.systems import options

MOTIONS = ("relative", "absolute")
"""Section 3.4: Eq. 14 and 15, or the driver's keypoints as they are."""
FLAGS = {
    "motion": "relative (default, as in section 3.4 of its paper): the driver's motion since its first frame moves the source; "
    "absolute (the released demo's default): the source takes the driver's pose",
    "adapt_scale": "scale relative motion by the ratio of the source's object size to the driver's (default: false)",
    "smooth": options.FLAG,
}
"""Options by name with the help text of `python -m maskanim_jax.animate --help`."""
VARIANTS: dict[str, dict[str, str]] = {motion: {"motion": motion} for motion in MOTIONS}
"""Variants that the cross-identity evaluation compares."""
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclasses.dataclass(frozen=True)
class AnimationOptions:
    """`motion`: one of MOTIONS; `adapt_scale`: whether relative motion is scaled by the ratio of
    the keypoints' hulls.

    `smooth`: weight of past frames in each frame's keypoints; 0 means off.
    """

    motion: str = "relative"
    adapt_scale: bool = False
    smooth: float = 0.0


def parse_options(given: Mapping[str, str]) -> AnimationOptions:
    """Parses options given as text. Raises UserError for unknown options and invalid values."""
    if unknown := sorted(set(given) - set(FLAGS)):
        raise UserError(f"--{unknown[0]} is not an option of FOMM; it has {', '.join(f'--{name}' for name in FLAGS)}")
    motion = given.get("motion", "relative")
    if motion not in MOTIONS:
        raise UserError(f"--motion={motion} must be {' or '.join(MOTIONS)}")
    text = given.get("adapt_scale", "false")
    adapt_scale = TRUTH.get(str(text).lower())
    if adapt_scale is None:
        raise UserError(f"--adapt_scale={text} must be true or false")
    if adapt_scale and motion == "absolute":
        raise UserError("--adapt_scale has no effect with --motion=absolute: omit one of them")
    return AnimationOptions(motion, adapt_scale, options.parse_smooth(str(given.get("smooth", "0"))))
