"""Which averages of the weights does a run keep? An exponential moving average, which evaluation and animation use."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import PyTree, Variables

Averages = dict[str, PyTree]
"""{"params": ..., "stats": ...}: trees like those of `Variables`."""


def check_decay(decay: float) -> None:
    """Raises UserError for a value of `config.optim.ema` that is no decay."""
    if not 0 <= decay < 1:
        raise UserError(f"config.optim.ema={decay:g} must be at least 0 and below 1: give 0.999, or 0 for no averages")


def begin(variables: Variables) -> Averages:
    """The averages before the first step: copies of the variables."""
    return jax.tree.map(jnp.array, variables._asdict())


def moved(averages: Averages, variables: Variables, step: jax.Array, decay: float) -> Averages:
    """The averages after step number `step` (counted from 0), whose result `variables` is.

    The first steps count more: the decay is at most (1 + step) / (10 + step), so that the random start is soon forgotten. Batch statistics
    are averaged like the parameters, because statistics of the newest weights do not belong to averaged ones.
    """
    step = step.astype(jnp.float32)
    share = 1 - jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))
    return jax.tree.map(lambda average, new: average + share * (new - average), averages, variables._asdict())
