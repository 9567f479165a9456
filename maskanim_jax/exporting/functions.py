"""Which functions does an export contain? `begin`, called once per video, and `animate`, once per
batch.

They wrap the system's methods with plain dicts of named arrays, so that callers need no
classes of this project. Arrays that neither needs (a discriminator's weights, values
for a warning) are omitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskanim_jax.exporting.one_platform import used_inputs
from maskanim_jax.systems.interface import System, Variables

Arrays = dict[str, Any]
SEEN = 2
"""The batch size for which shapes are determined; any number works."""


@dataclasses.dataclass(frozen=True)
class Functions:
    """An animation to export. Frames are (N, S, S, 3) float32 in [0, 1]."""

    weights: dict[str, np.ndarray]
    source_state: dict[str, jax.ShapeDtypeStruct]
    begin: Callable[[Arrays, jax.Array, jax.Array], Arrays]
    """Maps (weights, source, first driving frame), one frame each, to the
    structure of `source_state`.
    """
    animate: Callable[[Arrays, Arrays, jax.Array], Arrays]
    """Maps (weights, source_state, driving) to outputs by name."""


def named(tree: Any) -> Arrays:
    """The leaves of a tree by their path, such as "params.mask.last.kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
    }


def frames_of(size: int, count: Any) -> jax.ShapeDtypeStruct:
    """The shape of `count` frames."""
    return jax.ShapeDtypeStruct((count, size, size, 3), jnp.float32)


def functions_of(system: System, variables: Variables, options: Any, names: Sequence[str]) -> Functions:
    """The functions of `system` with these options and folded batch
    norms, for the named outputs.
    """
    folded = jax.device_get(jax.jit(system.for_inference)(variables))
    one, some = frames_of(system.frame_size, 1), frames_of(system.frame_size, SEEN)
    source_state = jax.eval_shape(system.encode_source, folded, one, one)
    every_weight, state_names = named(folded), named(source_state)
    weights_shape, state_shape = jax.tree.structure(folded), jax.tree.structure(source_state)

    def whole(given: Arrays, every: Arrays, shape: Any) -> Any:
        # Omitted arrays are unused; zeros replace them while tracing and are eliminated.
        leaves = [given[name] if name in given else jnp.zeros(leaf.shape, leaf.dtype) for name, leaf in every.items()]
        return jax.tree.unflatten(shape, leaves)

    def animate(weights: Arrays, source_state: Arrays, driving: jax.Array) -> Arrays:
        known = whole(weights, every_weight, weights_shape), whole(source_state, state_names, state_shape)
        outputs = system.animate(*known, driving, options)
        return {name: outputs[name] for name in names}

    kept_state = _used(animate, 1, every_weight, state_names, some)

    def begin(weights: Arrays, source: jax.Array, first: jax.Array) -> Arrays:
        source_state = named(system.encode_source(whole(weights, every_weight, weights_shape), source, first))
        return {name: source_state[name] for name in kept_state}

    kept = {*_used(begin, 0, every_weight, one, one), *_used(animate, 0, every_weight, kept_state, some)}
    weights = {name: np.asarray(leaf) for name, leaf in every_weight.items() if name in kept}
    return Functions(weights, kept_state, begin, animate)


def _used(function: Callable[..., Any], place: int, *inputs: Any) -> Arrays:
    """The entries that the function needs of its `place`-th input, a dict."""
    flags = jax.tree.unflatten(jax.tree.structure(inputs), used_inputs(function, *inputs))
    return {name: leaf for name, leaf in inputs[place].items() if flags[place][name]}
