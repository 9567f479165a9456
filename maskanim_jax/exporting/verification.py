"""Do exported files run, and do their results match this project's?

Checked before an export is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.exporting.run_exported import load

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.run import LoadedRun

FRAMES = 3
LARGEST_MEAN = 1 / 255
"""Largest accepted mean difference of the results, in [0, 1].

Single pixels may differ by more if a mask is at its threshold.
"""


def verify(folder: Path, run: LoadedRun, options: Any) -> dict[str, Any] | None:
    """Loads the export in `folder` like its users, animates three frames and compares them
    with the project's frames.

    Returns the number of frames with the mean and largest difference, in [0, 1]; None if
    the export is for platforms that this machine lacks. Raises UserError if it does not
    run or its results differ.
    """
    from maskanim_jax.animation.generate import animate

    source, driving = _frames(run.system.frame_size)
    try:
        animation = load(folder)
        platforms = animation.info.get("platforms")
        if platforms is not None and not {jax.default_backend(), *_alias(jax.default_backend())} & set(platforms):
            return None
        found = [outputs[run.system.result] for outputs in animation.outputs(source, driving)]
    except Exception as error:  # a third-party runtime may raise anything
        reason = (str(error).splitlines() or [""])[0][:300] or type(error).__name__
        raise UserError(
            f"the exported files don't run ({reason}), so nothing was written: use another --format or other options, or report this"
        ) from error
    batch = animation.info["batch"] or FRAMES
    own = animate(run.system, run.variables, source, driving, options, batch=batch, names=(run.system.result,))
    wanted = [outputs[run.system.result] for outputs in own]
    difference = np.abs(np.stack(found) - np.stack(wanted))
    mean, largest = float(difference.mean()), float(difference.max())
    if not mean <= LARGEST_MEAN:
        raise UserError(
            f"the exported files' frames differ from this project's (on average {255 * mean:.2g} of 255 grey levels), so nothing was "
            "written: use another --format or other options, or report this"
        )
    return {"frames": FRAMES, "mean_difference": mean, "largest_difference": largest}


def _alias(backend: str) -> tuple[str, ...]:
    """JAX calls both its NVIDIA and AMD backends "gpu"; exports distinguish them."""
    return ("cuda", "rocm") if backend == "gpu" else ()


def _frames(size: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A source (S, S, 3) uint8 and driving frames in which a bright spot moves over stripes."""
    y, x = np.mgrid[:size, :size] / size
    colours = np.stack([0.5 + 0.4 * np.sin(9 * x), 0.3 + 0.3 * y, 0.4 + 0.3 * np.cos(7 * (x + y))], -1)

    def frame(left: float, top: float) -> np.ndarray:
        spot = np.exp(-((x - left) ** 2 + (y - top) ** 2) / 0.02)[..., None]
        return np.rint(255 * np.clip(colours * (1 - spot) + spot, 0, 1)).astype(np.uint8)

    return frame(0.4, 0.5), [frame(0.4 + 0.08 * number, 0.5 - 0.04 * number) for number in range(FRAMES)]
