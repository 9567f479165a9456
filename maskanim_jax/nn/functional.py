"""How does a Flax NNX module become a pure function of its variables?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from maskanim_jax.nn.initializers import Draws, drawn

Tree = Any


def _split(module: nnx.Module) -> tuple[Any, Any, Any]:
    """(structure, parameters, batch statistics)."""
    split: Any = nnx.split  # its own type is too general to unpack
    return split(module, nnx.Param, nnx.BatchStat)


def _folded(module: nnx.Module) -> nnx.Module:
    """The module itself, changed: every block that can fold has folded."""
    for _, part in list(nnx.iter_modules(module)):
        if hasattr(part, "fold"):
            part.fold()
    return module


class Network:
    """A module as pure functions over plain dicts of arrays, so that jit, sharding and checkpoints see nothing but arrays.

    `remat`: in training its activations are not kept for the backward pass but computed again. `name` labels its operations in profiles.
    """

    def __init__(self, make: Callable[[nnx.Rngs], nnx.Module], remat: bool = False, name: str = "") -> None:
        self._name = name or "network"
        self._make = make
        self._remat = remat
        asked = Draws(jax.random.key(0))
        self._graph = _split(nnx.eval_shape(lambda: make(asked.as_rngs())))[0]
        self._wanted = asked.wanted
        self._folded_graph, params, _ = _split(
            nnx.eval_shape(lambda: _folded(make(Draws(jax.random.key(0)).as_rngs())))
        )
        self._folded_params: Any = jax.tree.structure(nnx.to_pure_dict(params))

    def init(self, key: jax.Array) -> tuple[Tree, Tree]:
        """Fresh (parameters, batch statistics)."""
        _, params, stats = _split(self._make(Draws(key, drawn(key, self._wanted)).as_rngs()))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def fold(self, params: Tree, stats: Tree) -> tuple[Tree, Tree]:
        """Batch norms in evaluation mode taken into the convs before them: (parameters, statistics) to call without training."""
        _, params, stats = _split(_folded(nnx.merge(self._graph, params, stats)))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    def __call__(self, params: Tree, stats: Tree, *inputs: jax.Array, train: bool) -> tuple[jax.Array, Tree]:
        """(output, batch statistics after the call; unchanged when not training); parameters may be folded ones."""
        folded = jax.tree.structure(params) == self._folded_params
        graph = self._folded_graph if folded else self._graph

        def run(params: Tree, stats: Tree, *inputs: jax.Array) -> tuple[jax.Array, Tree]:
            module: Any = nnx.merge(graph, params, stats)
            output = module(*inputs, train=train)
            return output, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)) if train else stats

        with jax.named_scope(self._name):
            return (jax.checkpoint(run) if self._remat and train else run)(params, stats, *inputs)


def fold_all(
    networks: Mapping[str, Network], params: Mapping[str, Tree], stats: Mapping[str, Tree]
) -> tuple[dict[str, Tree], dict[str, Tree]]:
    """`Network.fold` of every network that has parameters here."""
    folded = {name: networks[name].fold(params[name], stats.get(name, {})) for name in params}
    return {name: found for name, (found, _) in folded.items()}, {name: found for name, (_, found) in folded.items()}


def count_parameters(params: Tree) -> int:
    """Number of trained numbers in a tree."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
