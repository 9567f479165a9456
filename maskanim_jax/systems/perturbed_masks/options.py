"""Which options does animation with Perturbed Masks have?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError
from maskanim_jax.systems import options

ABLATIONS = ("none", "no_pert", "no_ref", "no_id")
"""Section 4.3: without P_test, without r, without both."""
FLAGS = {
    "threshold": "mask values below this become 0: median, or a number from 0 to 255",
    "mask_scale": "scale factor of the driving mask about its centre, such as 0.75",
    "ablation": "ablation: no_pert (without P_test), no_ref (without r) or no_id (without both)",
    "smooth": options.FLAG,
}
"""Options by name with the help text of `python -m maskanim_jax.animate --help`."""

VARIANTS: dict[str, dict[str, str]] = {"full" if name == "none" else name: {"ablation": name} for name in ABLATIONS}
"""Variants that the cross-identity evaluation compares: the method and its ablations."""


@dataclasses.dataclass(frozen=True)
class AnimationOptions:
    """`threshold`: rho of P_test, "median" or 0..255; `mask_scale`: its resize; `ablation`: one of
    ABLATIONS; `smooth`: 0, or share of the past.
    """

    threshold: str | float
    mask_scale: float
    ablation: str = "none"
    smooth: float = 0.0


def _number(name: str, text: str, low: float, high: float, otherwise: str = "") -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise UserError(f"--{name}={text} must be {otherwise}a number from {low:g} to {high:g}")
    return value


def parse_options(given: Mapping[str, str], perturb: ConfigDict) -> AnimationOptions:
    """Parses options given as text; `config.perturb` has the defaults. Raises UserError for invalid
    ones.
    """
    unknown = sorted(set(given) - set(FLAGS))
    if unknown:
        raise UserError(
            f"--{unknown[0]} is not an option of Perturbed Masks; it has {', '.join(f'--{name}' for name in FLAGS)}"
        )
    threshold = str(given.get("threshold", perturb.test_threshold))
    ablation = given.get("ablation", "none")
    if ablation not in ABLATIONS:
        raise UserError(f"--ablation={ablation} must be one of {', '.join(ABLATIONS)}")
    return AnimationOptions(
        "median" if threshold == "median" else _number("threshold", threshold, 0, 255, "'median' or "),
        _number("mask_scale", str(given.get("mask_scale", perturb.test_scale)), 0.05, 4.0),
        ablation,
        options.parse_smooth(str(given.get("smooth", "0"))),
    )
