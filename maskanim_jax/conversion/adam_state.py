"""Where are Adam's moments in the optimiser state? Conversion reads and writes them per network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from maskanim_jax.systems.interface import PyTree
from maskanim_jax.systems.optimizers import WaitingState


class Moments(NamedTuple):
    """Adam's state for one network: the number of `updates`, and the running means of gradients and
    squared gradients, as trees like its parameters.
    """

    updates: int
    first: PyTree
    second: PyTree


def _owner(state: optax.ScaleByAdamState) -> str:
    """The network that these moments belong to; all other networks are masked out."""
    (name,) = (name for name, tree in state.mu.items() if not isinstance(tree, optax.MaskedNode))
    return name


def _is_part(node: Any) -> bool:
    return isinstance(node, optax.ScaleByAdamState | WaitingState | optax.ScaleByScheduleState)


def read_moments(opt_state: PyTree) -> dict[str, Moments]:
    """The moments of every network, read from a state of `adam_by_network`."""
    found = {}
    for part in jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, optax.ScaleByAdamState)):
        if isinstance(part, optax.ScaleByAdamState):
            name = _owner(part)
            found[name] = Moments(int(part.count), part.mu[name], part.nu[name])
    return found


def place_moments(opt_state: PyTree, moments: Mapping[str, Moments], step: int) -> PyTree:
    """The state with these networks' moments, as after `step` training steps; other networks keep
    theirs.
    """

    def place(part: Any) -> Any:
        if isinstance(part, WaitingState):
            return WaitingState(jnp.asarray(step, jnp.int32), jax.tree.map(place, part.inner, is_leaf=_is_part))
        if isinstance(part, optax.ScaleByScheduleState):
            return part._replace(count=jnp.asarray(step, jnp.int32))
        if isinstance(part, optax.ScaleByAdamState) and (name := _owner(part)) in moments:
            given = moments[name]
            return optax.ScaleByAdamState(
                jnp.asarray(given.updates, jnp.int32),
                {**part.mu, name: jax.tree.map(jnp.asarray, given.first)},
                {**part.nu, name: jax.tree.map(jnp.asarray, given.second)},
            )
        return part

    return jax.tree.map(place, opt_state, is_leaf=_is_part)
