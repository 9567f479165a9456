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
    """A module as two pure functions over plain dicts of arrays, so that jit, sharding and checkpoints see nothing but arrays."""

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module]) -> None:
        self._make = make
        self._graph = _split(nnx.eval_shape(lambda: make(nnx.Rngs(0))))[0]

    def init(self, key: jax.Array) -> tuple[Tree, Tree]:
        """Fresh (parameters, batch statistics)."""
        _, params, stats = _split(self._make(nnx.Rngs(params=key)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def __call__(self, params: Tree, stats: Tree, *inputs: jax.Array, train: bool) -> tuple[jax.Array, Tree]:
        """(output, batch statistics after the call; unchanged when not training)."""
        module: Any = nnx.merge(self._graph, params, stats)
        output = module(*inputs, train=train)
        return output, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)) if train else stats


def count_parameters(params: Tree) -> int:
    """Number of trained numbers in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
