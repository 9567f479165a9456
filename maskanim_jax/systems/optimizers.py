"""How are the networks of a system optimised?

One Adam per network, a common schedule, delayed starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


class WaitingState(NamedTuple):
    """State of `delayed_start`: number of steps, and the inner optimiser's state, unchanged until
    it starts.
    """

    seen: jax.Array
    inner: Any


def delayed_start(inner: optax.GradientTransformation, start: int) -> optax.GradientTransformation:
    """Delays an optimiser until step `start`; its moments and bias correction also begin there."""

    def init(params: optax.Params) -> WaitingState:
        return WaitingState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        assert isinstance(state, WaitingState)
        started = state.seen >= start
        moved, after = inner.update(grads, state.inner, params)
        updates = jax.tree.map(lambda u: jnp.where(started, u, jnp.zeros_like(u)), moved)
        kept = jax.tree.map(lambda new, old: jnp.where(started, new, old), after, state.inner)
        return updates, WaitingState(state.seen + 1, kept)

    return optax.GradientTransformation(init, update)


def learning_rate(step: jax.Array | int, steps_per_epoch: int, optim: ConfigDict) -> jax.Array:
    """The common learning rate at a step: linear warm-up, a factor `decay` after each of
    `decay_epochs`, optional cosine.
    """
    step = jnp.asarray(step)
    rate = jnp.float32(optim.learning_rate)
    for epoch in optim.decay_epochs:
        rate *= jnp.where(step >= epoch * steps_per_epoch, optim.decay, 1.0)
    if optim.warmup_steps:
        rate *= jnp.minimum(1.0, (step + 1) / optim.warmup_steps)
    if optim.cosine_steps:
        rate *= 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(1.0, step / optim.cosine_steps)))
    return rate


def adam_by_network(
    optim: ConfigDict, steps_per_epoch: int, lr_multipliers: Mapping[str, float], starts: Mapping[str, int]
) -> optax.GradientTransformation:
    """Adam for a dict of networks.

    `lr_multipliers` maps every network to the multiplier of its learning rate; `starts` (steps)
    lists the networks whose training starts later.
    """

    def one(name: str) -> optax.GradientTransformation:
        tx = optax.chain(
            optax.scale_by_adam(b1=optim.beta1, b2=optim.beta2, eps=1e-8), optax.scale(lr_multipliers[name])
        )
        return delayed_start(tx, starts[name]) if starts.get(name) else tx

    def labels(params: Mapping[str, Any]) -> dict[str, str]:
        return {name: name for name in params}

    return optax.chain(
        optax.partition({name: one(name) for name in lr_multipliers}, labels),
        optax.scale_by_learning_rate(lambda count: learning_rate(count, steps_per_epoch, optim)),
    )
