"""Is the published ranking of the methods reproduced? One sentence per set and metric."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from maskanim_jax.metrics.bootstrap import interval

PUBLISHED = ("fine", "FOMM", "Monkey-Net", "X2Face")
"""Best first: the order of Table 1 and of the user study (Table 3), except VoxCeleb's AKD,
where FOMM leads Table 1.
"""
VOX_AKD = "Table 1 also has FOMM ahead of Perturbed Masks in VoxCeleb's AKD, 1.294 against 1.329"
NAMES = {"fine": "Perturbed Masks"}

Clips = Mapping[str, Sequence[float]]
"""One value per clip by method, for the same clips in the same order."""


def sentence(set_name: str, key: str, clips: Clips, higher_is_better: bool = False) -> str:
    """Whether the published ranking is reproduced, which pairs are swapped, and whether the lead
    over FOMM is significant.
    """
    sign = -1.0 if higher_is_better else 1.0
    means = {method: interval(clips[method]).mean for method in PUBLISHED}
    pairs = itertools.pairwise(PUBLISHED)
    turned = [(better, worse) for better, worse in pairs if sign * means[better] >= sign * means[worse]]
    order = ", ".join(_name(method) for method in PUBLISHED)
    text = f"{set_name}, {key}: the published order ({order}) "
    if turned:
        why = "; ".join(
            f"{_name(better)} and {_name(worse)} are level at {means[worse]:.3g}"
            if means[better] == means[worse]
            else f"{_name(better)} is not ahead of {_name(worse)}: {means[better]:.3g} against {means[worse]:.3g}"
            for better, worse in turned
        )
        text += f"is not reproduced: {why}"
        if ("fine", "FOMM") in turned and key.startswith("akd") and "vox" in set_name.lower():
            text += f" ({VOX_AKD})"
    else:
        text += "is reproduced"
    lead = interval([sign * (b - a) for a, b in zip(clips["fine"], clips["FOMM"], strict=True)])
    side = "for" if lead.low > 0 else "against" if lead.high < 0 else "neither for nor against"
    return (
        f"{text}; of {len(clips['fine'])} clips, the difference to FOMM is {lead.mean:+.3g} "
        f"({lead.low:+.3g} to {lead.high:+.3g}), which speaks {side} Perturbed Masks."
    )


def _name(method: str) -> str:
    return NAMES.get(method, method)
