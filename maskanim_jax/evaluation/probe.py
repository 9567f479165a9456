"""Does the system ignore the driver, or leak the driver's appearance? Checked during training.

The probe is a fixed batch: a few held-out sources, each animated by frames of held-out clips of
other identities with the system's default options. Each driver is also used with its colour
channels rotated (red to green to blue), which changes its appearance but not its pose.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.shards import Split
from maskanim_jax.animation.compiled import IdentityKey
from maskanim_jax.systems.interface import System, Variables

SOURCES = 4
DRIVERS = 8
SAME_MASK = 0.005
"""Below this deviation, masks of different drivers count as equal."""
SAME_RESULT = 0.002
"""Below this deviation, results of different drivers count as independent of the driver."""
LEAKS = 0.3
"""Identity leaks if at least this share of a change of the driver's colours reaches the result.
"""
NEARER = 0.5
"""Identity leaks if more than this share of the results are nearer to the driver's colours than to
the source's; see LEAKING_AT_LEAST.
"""
LEAKING_AT_LEAST = 0.1
"""A blur is near to all colours, so nearness only counts as a leak with at least this `probe_leak`.
"""
LITTLE_COLOUR = 1e-3
"""If rotating the colours changes less than this (mean squared), no leak can be
measured: the clips are grey.
"""


class Probe(NamedTuple):
    """The fixed batch: (P, S, S, 3) sources and (P, N, S, S, 3) drivers of each, uint8."""

    sources: np.ndarray
    drivings: np.ndarray


def probe_pairs(split: Split) -> Probe | None:
    """The first frame of the split's first SOURCES clips, and for each the middle frames of the
    DRIVERS next clips of other identities.

    Drivers are repeated if there are too few. None if the split does not have two identities.
    """
    sources, drivings = [], []
    for number, clip in enumerate(split.clips[:SOURCES]):
        order = [*range(number + 1, len(split.clips)), *range(number)]
        others = [other for other in order if split.clips[other].identity != clip.identity]
        if not others:
            return None
        chosen = [others[i % len(others)] for i in range(DRIVERS)]
        sources.append(split.frame(number, 0))
        drivings.append(np.stack([split.frame(other, split.clips[other].count // 2) for other in chosen]))
    return Probe(np.stack(sources), np.stack(drivings)) if sources else None


def probe(system: System, variables: Variables, batch: Probe) -> dict[str, float]:
    """The metrics of `batch` for the log:

    - `probe_result_drivers`: standard deviation of the result over the drivers of a source (root
      mean square over pixels); 0: the driver is ignored.
    - `probe_mask_drivers`: the same for the mask that should encode the
      pose, if the system has one.
    - `probe_leak`: how much of a change of the driver's colours reaches the result. With g, g' the
      results and d, d' the drivers before and after their colours are rotated: the sum of
      (g' - g)(d' - d) divided by the sum of (d' - d) squared. 0: the driver's colours do not
      matter; 1: the result is the driver itself. Omitted for drivers without colour.
    - `probe_nearer_driver`: share of the results whose colours, sorted in each channel, are nearer
      to the driver's than to the source's in mean absolute difference.
    """
    options = system.animation_options({})
    run = _compiled(IdentityKey(system), options)
    rows: list[dict[str, np.ndarray]] = []
    for source, drivings in zip(batch.sources, batch.drivings, strict=True):
        rows.append(
            {name: np.asarray(value) for name, value in jax.device_get(run(variables, source[None], drivings)).items()}
        )
    through, change = (sum(float(row[name]) for row in rows) for name in ("through", "change"))
    figures = {"probe_result_drivers": float(np.mean([row["result"] for row in rows]))}
    if "mask" in rows[0]:
        figures["probe_mask_drivers"] = float(np.mean([row["mask"] for row in rows]))
    if change / len(rows) > LITTLE_COLOUR:
        figures["probe_leak"] = through / change
    figures["probe_nearer_driver"] = float(np.mean([row["nearer"] for row in rows]))
    return figures


def probe_warnings(figures: Mapping[str, float]) -> list[str]:
    """Warnings for the log from the metrics of `probe`; empty when there is no problem."""
    collapse_warnings = []
    if (mask := figures.get("probe_mask_drivers", 1.0)) < SAME_MASK:
        collapse_warnings.append(
            f"the mask is the same for every driver of the probe (deviation {mask:.4f}): it ignores its input"
        )
    if (result := figures.get("probe_result_drivers", 1.0)) < SAME_RESULT:
        collapse_warnings.append(
            f"the result is the same for every driver of the probe (deviation {result:.4f}): the driver is ignored"
        )
    leak, nearer = figures.get("probe_leak", 0.0), figures.get("probe_nearer_driver", 0.0)
    if leak > LEAKS:
        collapse_warnings.append(
            f"identity leaks: {100 * leak:.0f} % of a change of the driver's colours reaches the animation of another identity"
        )
    elif nearer > NEARER and leak > LEAKING_AT_LEAST:
        collapse_warnings.append(
            f"identity leaks: {100 * nearer:.0f} % of the probe's animations are nearer to the driver's colours than to the source's"
        )
    return collapse_warnings


@lru_cache(maxsize=2)
def _compiled(same: IdentityKey, options: Any) -> Any:
    """Maps one source (1, S, S, 3) and its drivers (N, S, S, 3), uint8, to
    sums; jitted once per system.
    """
    system = same.system

    def run(variables: Variables, source: jax.Array, drivings: jax.Array) -> dict[str, jax.Array]:
        still, drivers = (frames.astype(jnp.float32) / 255 for frames in (source, drivings))
        rotated = jnp.roll(drivers, 1, axis=-1)
        source_state = system.encode_source(variables, still, drivers[:1])
        outputs = system.animate(variables, source_state, jnp.concatenate([drivers, rotated]), options)
        results, again = jnp.split(outputs[system.result], 2)
        change = rotated - drivers
        own, theirs = (_apart(results, frames) for frames in (still, drivers))
        found = {
            "result": _deviation(results),
            "through": ((again - results) * change).mean(),
            "change": jnp.square(change).mean(),
            "nearer": (theirs < own).mean(),
        }
        if system.mask_output:
            found["mask"] = _deviation(jnp.split(outputs[system.mask_output], 2)[0])
        return found

    return jax.jit(run)


def _deviation(frames: jax.Array) -> jax.Array:
    """The standard deviation over the first axis, as root mean square over all other axes."""
    return jnp.sqrt(frames.var(0).mean())


def _apart(a: jax.Array, b: jax.Array) -> jax.Array:
    """The mean absolute difference of each channel's sorted values: (N, S, S, 3) to (N,)."""
    first, second = (jnp.sort(frames.reshape(frames.shape[0], -1, frames.shape[-1]), axis=1) for frames in (a, b))
    return jnp.abs(first - second).mean((1, 2))
