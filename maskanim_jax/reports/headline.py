"""How good is a run, in one sentence?

Its held-out error against the copy-source baseline, and collapse warnings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

if TYPE_CHECKING:
    from maskanim_jax.systems.interface import System

_MASK_METRICS = {"mask_mean": "mean", "mask_space": "std_space", "mask_time": "std_time"}
"""Names of metrics: the one that `System.collapse_warnings` expects, and the one
in `reconstruction.json`.
"""


class Headline(NamedTuple):
    """The sentence; `good` is None if nothing was measured."""

    text: str
    good: bool | None


class Health(NamedTuple):
    """Whether the run's system has a mask that encodes the pose, and its collapse warnings; None
    without metrics to judge by.
    """

    has_mask: bool
    collapse_warnings: list[str] | None


def health(workdir: Path, records: Sequence[Mapping[str, Any]], mask: Mapping[str, Any]) -> Health:
    """Lets the run's system judge the last logged metrics and the masks that
    reconstruction measured.

    Args:
        workdir: the run's folder; its config.json names the system.
        records: the result of `read_log`.
        mask: the value of "mask" in reconstruction.json, or empty.
    """
    system = _system(workdir)
    if system is None:
        return Health(bool(mask), None)
    logged: Mapping[str, Any] = next((record for record in reversed(records) if "loss" in record), {})
    measured = {name: mask[key] for name, key in _MASK_METRICS.items() if key in mask}
    try:
        collapse_warnings = system.collapse_warnings({**logged, **measured})
    except (KeyError, TypeError):  # no log, or non-finite values (null)
        return Health(system.mask_output is not None, None)
    return Health(system.mask_output is not None, collapse_warnings)


def headline(workdir: Path, figures: Mapping[str, Any], found: Health) -> Headline:
    """The sentence at the top of the run's page.

    Args:
        workdir: the run's folder, for the command in the sentence that measures what is missing.
        figures: the content of reconstruction.json, or empty.
        found: the result of `health`.
    """
    error, copied = figures.get("l1"), figures.get("l1_copy_source")
    if not (_is_number(error) and _is_number(copied) and copied > 0):
        missing = (
            "Nothing has been reconstructed yet, so the run's quality is unknown: run "
            f"python -m maskanim_jax.main --workdir={workdir} --mode=reconstruct"
        )
        alarmed = bool(found.collapse_warnings)
        return Headline(
            missing + "".join(f"; {alarm}" for alarm in found.collapse_warnings or ()), False if alarmed else None
        )
    better = error < copied
    share = abs(1 - error / copied)
    text = (
        f"{'Better' if better else 'Not better'} than copying the source: on {_amount(figures)} the mean error (L1) is {_short(error)}, "
        f"{100 * share:.0f} % {'less' if error <= copied else 'more'} than the {_short(copied)} of a copied source frame"
    )
    mask = figures.get("mask")
    deviation = mask.get("std_time") if isinstance(mask, dict) else None
    if found.collapse_warnings:
        text += "; but " + "; ".join(found.collapse_warnings)
    elif found.has_mask and _is_number(deviation):
        verdict = "the masks have not collapsed: they change" if found.collapse_warnings == [] else "the masks change"
        text += f"; {verdict} by {_short(deviation)} over the frames of a clip"
    return Headline(text + ".", better and not found.collapse_warnings)


def _system(workdir: Path) -> System | None:
    from maskanim_jax.systems import build
    from maskanim_jax.workdir.config import read_config

    try:
        return build(read_config(workdir))
    # config.json may be missing, damaged or from another version: the page then omits what depends on it.
    except Exception:
        return None


def _amount(figures: Mapping[str, Any]) -> str:
    """The amount of test data, such as "93 frames of 4 held-out clips"."""
    frames, clips = figures.get("frames"), figures.get("clips")
    counted = f"{frames} frame{'' if frames == 1 else 's'} of " if isinstance(frames, int) else ""
    if isinstance(clips, list) and clips:
        return f"{counted}{len(clips)} held-out clip{'' if len(clips) == 1 else 's'}"
    return f"{counted}held-out clips"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not finite"
