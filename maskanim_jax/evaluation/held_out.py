"""What is evaluated during training? Images and metrics of held-out clips."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.shards import Split
from maskanim_jax.evaluation.probe import probe, probe_pairs, probe_warnings
from maskanim_jax.systems.interface import System, Variables
from maskanim_jax.video.strips import grid, strip, to_uint8

SHOWN_PAIRS = 6
"""Number of pairs in an image grid."""


def eval_scalars(measured: Mapping[str, Any]) -> dict[str, float]:
    """Scalars of a reconstruction for the log."""
    figures = {f"test_{key}": measured[key] for key in ("l1", "l1_copy_source", "ratio") if measured[key] is not None}
    return figures | {f"test_mask_{key}": float(value) for key, value in measured.get("mask", {}).items()}


def eval_images(system: System, variables: Variables, split: Split, seed: int) -> dict[str, np.ndarray]:
    """A grid (H, W, 3) uint8 of held-out pairs (each clip's first and middle frame), with all
    intermediate pictures side by side.
    """
    numbers = list(
        itertools.islice(itertools.cycle(range(len(split.clips))), min(SHOWN_PAIRS, max(2, len(split.clips))))
    )
    sources = np.stack([split.frame(n, 0) for n in numbers])
    drivings = np.stack([split.frame(n, split.clips[n].count // 2) for n in numbers])
    outputs = jax.device_get(
        _outputs(system, variables, jnp.asarray(sources), jnp.asarray(drivings), jax.random.key(seed))
    )
    rows = [
        strip(
            {name: outputs[name][i] for name in system.output_names},
            system.output_names,
            max(96, system.frame_size),
            captions=i == 0,
        )
        for i in range(len(numbers))
    ]
    return {"held_out": grid(rows)} if rows else {"held_out": to_uint8(np.zeros((1, 1, 3)))}


def held_out_probe(system: System, variables: Variables, split: Split) -> tuple[dict[str, float], list[str]]:
    """(metrics of `probe`, warnings) for the log; empty if there are fewer than two identities."""
    batch = probe_pairs(split)
    if batch is None:
        return {}, []
    figures = probe(system, variables, batch)
    return figures, probe_warnings(figures)


def _show(
    system: System, variables: Variables, sources: jax.Array, drivings: jax.Array, key: jax.Array
) -> dict[str, jax.Array]:
    return system.outputs(variables, sources.astype(jnp.float32) / 255.0, drivings.astype(jnp.float32) / 255.0, key)


_outputs = jax.jit(_show, static_argnums=0)
