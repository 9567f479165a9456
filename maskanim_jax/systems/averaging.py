"""How are weights averaged?

An exponential moving average (EMA), used for evaluation and animation.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from maskanim_jax.errors import UserError
from maskanim_jax.systems.interface import PyTree, Variables

Averages = dict[str, PyTree]
"""{"params": ..., "stats": ...}: trees like those of `Variables`."""


def check_decay(decay: float) -> None:
    """Raises UserError unless `config.optim.ema` is a valid decay."""
    if not 0 <= decay < 1:
        raise UserError(f"config.optim.ema={decay:g} must be at least 0 and below 1: give 0.999, or 0 for no averages")


def begin(variables: Variables) -> Averages:
    """The initial averages: copies of the variables."""
    return jax.tree.map(jnp.array, variables._asdict())


def moved(averages: Averages, variables: Variables, step: jax.Array, decay: float) -> Averages:
    """Updates the averages with `variables`, the result of step `step` (counted from 0).

    The decay is at most (1 + step) / (10 + step), so that the random initial weights are soon
    forgotten. Batch statistics are averaged like parameters: statistics of the newest weights do
    not match averaged weights.
    """
    step = step.astype(jnp.float32)
    share = 1 - jnp.minimum(jnp.float32(decay), (1 + step) / (10 + step))
    return jax.tree.map(lambda average, new: average + share * (new - average), averages, variables._asdict())
