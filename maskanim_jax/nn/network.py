"""How does a Flax NNX module become a pure function of its variables?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

Tree = Any


def _split(module: nnx.Module) -> tuple[Any, Any, Any]:
    """(structure, parameters, batch statistics)."""
    split: Any = nnx.split  # its own type is too general to unpack
    return split(module, nnx.Param, nnx.BatchStat)


class Network:
    """A module as two pure functions over plain dicts of arrays, so that jit, sharding and checkpoints see nothing but arrays.

    `remat`: in training its activations are not kept for the backward pass but computed again.
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], remat: bool = False) -> None:
        self._make = make
        self._remat = remat
        self._graph = _split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]

    def init(self, key: jax.Array) -> tuple[Tree, Tree]:
        """Fresh (parameters, batch statistics)."""
        _, params, stats = _split(self._make(nnx.Rngs(params=key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def __call__(self, params: Tree, stats: Tree, *inputs: jax.Array, train: bool) -> tuple[jax.Array, Tree]:
        """(output, batch statistics after the call; unchanged when not training)."""

        def run(params: Tree, stats: Tree, *inputs: jax.Array) -> tuple[jax.Array, Tree]:
            module: Any = nnx.merge(self._graph, params, stats)
            output = module(*inputs, train=train)
            return output, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)) if train else stats

        return (jax.checkpoint(run) if self._remat and train else run)(params, stats, *inputs)


def count_parameters(params: Tree) -> int:
    """Number of trained numbers in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
