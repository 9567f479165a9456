"""How does a Flax NNX module become a pure function of its variables?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from maskanim_jax.nn.initializers import BatchedInit, draw_all

PyTree = Any


def _split(module: nnx.Module) -> tuple[Any, Any, Any]:
    """(structure, parameters, batch statistics)."""
    split: Any = nnx.split  # the declared type is too general to unpack
    return split(module, nnx.Param, nnx.BatchStat)


def _folded(module: nnx.Module) -> nnx.Module:
    """Folds every block of the module that can be folded, in place; returns the module."""
    for _, part in list(nnx.iter_modules(module)):
        if hasattr(part, "fold"):
            part.fold()
    return module


class FunctionalModule:
    """A module as pure functions over plain dicts of arrays, so that jit, sharding and
    checkpoints only see arrays.

    `remat`: in training, activations are recomputed in the backward pass. `name` labels
    the operations in profiles.
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], remat: bool = False, name: str = "") -> None:
        self._name = name or "network"
        self._make = make
        self._remat = remat
        asked = BatchedInit(jax.random.key(0))
        self._graph = _split(nnx.eval_shape(lambda: make(asked.as_rngs())))[0]
        self._wanted = asked.wanted
        self._folded_graph, params, _ = _split(
            nnx.eval_shape(lambda: _folded(make(BatchedInit(jax.random.key(0)).as_rngs())))
        )
        self._folded_params: Any = jax.tree.structure(nnx.to_pure_dict(params))

    def init(self, key: jax.Array) -> tuple[PyTree, PyTree]:
        """Newly initialised (parameters, batch statistics)."""
        _, params, stats = _split(self._make(BatchedInit(key, draw_all(key, self._wanted)).as_rngs()))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def fold(self, params: PyTree, stats: PyTree) -> tuple[PyTree, PyTree]:
        """Folds batch norms in evaluation mode into the preceding convs: (parameters, statistics)
        for calls with `train=False`.
        """
        _, params, stats = _split(_folded(nnx.merge(self._graph, params, stats)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def __call__(self, params: PyTree, stats: PyTree, *inputs: jax.Array, train: bool) -> tuple[jax.Array, PyTree]:
        """(output, batch statistics after the call, unchanged when not training); the
        parameters may be folded.
        """
        folded = jax.tree.structure(params) == self._folded_params
        graph = self._folded_graph if folded else self._graph

        def run(params: PyTree, stats: PyTree, *inputs: jax.Array) -> tuple[jax.Array, PyTree]:
            module: Any = nnx.merge(graph, params, stats)
            output = module(*inputs, train=train)
            return output, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)) if train else stats

        with jax.named_scope(self._name):
            return (jax.checkpoint(run) if self._remat and train else run)(params, stats, *inputs)


def fold_all(
    networks: Mapping[str, FunctionalModule], params: Mapping[str, PyTree], stats: Mapping[str, PyTree]
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
    """`FunctionalModule.fold` for every network in `params`."""
    folded = {name: networks[name].fold(params[name], stats.get(name, {})) for name in params}
    return {name: found for name, (found, _) in folded.items()}, {name: found for name, (_, found) in folded.items()}


def count_parameters(params: PyTree) -> int:
    """Number of trainable scalars in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
