"""What does an export for JAX contain?

The two functions as `jax.export` artefacts, and the weights.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.exporting.functions import Functions, frames_of

FIXED = 8
"""The batch size for systems whose operations need a fixed one."""


def check_ready() -> None:
    """Raises UserError if the package that `jax.export` needs for writing is not installed."""
    if importlib.util.find_spec("flatbuffers") is None:
        raise UserError(
            "JAX needs the package flatbuffers to write exported functions: pip install 'maskanim_jax[export]'"
        )


def write_jax(folder: Path, made: Functions, size: int, platforms: Sequence[str], batch: int | None) -> dict[str, Any]:
    """Writes begin.jax_export, animate.jax_export and weights.npz; returns their metadata.

    `batch` None: any number of frames per call if the system's operations allow it, else FIXED.
    """
    one = frames_of(size, 1)
    export = jax.export.export
    begin = export(jax.jit(made.begin), platforms=platforms)(made.weights, one, one)
    animate = jax.jit(made.animate)
    if batch is None:
        try:
            (any_number,) = jax.export.symbolic_shape("b", constraints=["b >= 1"])
            frames = frames_of(size, any_number)
            exported = export(animate, platforms=platforms)(made.weights, made.source_state, frames)
        except jax.errors.InconclusiveDimensionOperation:
            batch = FIXED
    if batch is not None:
        exported = export(animate, platforms=platforms)(made.weights, made.source_state, frames_of(size, batch))
    for name, function in (("begin", begin), ("animate", exported)):
        (folder / f"{name}.jax_export").write_bytes(function.serialize())
    with (folder / "weights.npz").open("wb") as file:
        np.savez(file, **made.weights)  # type: ignore[arg-type]
    return {
        "platforms": list(exported.platforms),
        "batch": batch,
        "calling_convention": exported.calling_convention_version,
        "calling_conventions_of_this_jax": [
            jax.export.minimum_supported_calling_convention_version,
            jax.export.maximum_supported_calling_convention_version,
        ],
    }
