"""What can a user choose when animating with FOMM?"""

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
    "adapt_scale": "scale relative motion by the size of the source's object beside the driver's (or =false, the default)",
    "smooth": options.FLAG,
}
"""Options by name with what `python -m maskanim_jax.animate --help` says of them."""
VARIANTS: dict[str, dict[str, str]] = {motion: {"motion": motion} for motion in MOTIONS}
"""What is compared where the truth is known."""
TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclasses.dataclass(frozen=True)
class AnimationOptions:
    """`motion`: one of MOTIONS; `adapt_scale`: whether relative motion is scaled by the ratio of the keypoints' hulls.

    `smooth`: share of the past in each frame's keypoints, 0: off.
    """

    motion: str = "relative"
    adapt_scale: bool = False
    smooth: float = 0.0


def parse_options(given: Mapping[str, str]) -> AnimationOptions:
    """Options as text by name; raises UserError for what cannot be."""
    if unknown := sorted(set(given) - set(FLAGS)):
        raise UserError(f"--{unknown[0]} is not an option of FOMM; it has {', '.join(f'--{name}' for name in FLAGS)}")
    motion = given.get("motion", "relative")
    if motion not in MOTIONS:
        raise UserError(f"--motion={motion} cannot be: give {' or '.join(MOTIONS)}")
    text = given.get("adapt_scale", "false")
    adapt_scale = TRUTH.get(str(text).lower())
    if adapt_scale is None:
        raise UserError(f"--adapt_scale={text} cannot be: give true or false")
    if adapt_scale and motion == "absolute":
        raise UserError(
            "--adapt_scale scales relative motion and changes nothing with --motion=absolute: leave one of them away"
        )
    return AnimationOptions(motion, adapt_scale, options.parse_smooth(str(given.get("smooth", "0"))))
