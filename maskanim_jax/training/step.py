"""What is a run at one step? Everything that training needs to go on, and the one step that changes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from maskanim_jax.distributed.sharding import in_parts, replicated, split
from maskanim_jax.systems.interface import Gradients, System, Tree, Variables
from maskanim_jax.utils.memory import give_back_memory


class TrainState(NamedTuple):
    """`step` counts finished steps; it is also the position in the data, since a batch is a function of (seed, step)."""

    step: jax.Array
    params: Tree
    stats: Tree
    opt_state: Any

    @property
    def variables(self) -> Variables:
        """Parameters and batch statistics, as the system takes them."""
        return Variables(self.params, self.stats)


def init_state(system: System, seed: int, steps_per_epoch: int) -> TrainState:
    """The state before the first step; a pure function of config and seed."""
    variables = system.init(jax.random.key(seed))
    return TrainState(
        jnp.zeros((), jnp.int32),
        variables.params,
        variables.stats,
        system.optimizer(steps_per_epoch).init(variables.params),
    )


def fresh_state(system: System, seed: int, steps_per_epoch: int, mesh: Mesh) -> TrainState:
    """`init_state` on every device of the mesh."""
    # It runs once: on a CPU, where compiling it well takes longer than all else before the first step, that is left out.
    options: dict[str, Any] = {"xla_backend_optimization_level": 0} if mesh.devices.flat[0].platform == "cpu" else {}
    made = jax.jit(init_state, static_argnums=(0, 1, 2), out_shardings=replicated(mesh), compiler_options=options)
    state = jax.block_until_ready(made(system, seed, steps_per_epoch))
    give_back_memory()
    return state


FINITE = "finite"
"""The metric that says whether a step may be kept."""


def health(found: Gradients) -> dict[str, jax.Array]:
    """`gradient_norm_NETWORK` of each network, float32, and `finite`: bool, whether losses, gradients and new statistics all are.

    A gradient whose norm overflows counts as not finite: Adam's second moments would overflow, too.
    """
    norms = {
        f"gradient_norm_{name}": jnp.asarray(optax.global_norm(grads), jnp.float32)
        for name, grads in found.grads.items()
    }
    losses = [value for name, value in found.metrics.items() if name.startswith("loss")]
    parts = [jnp.isfinite(each).all() for each in (*losses, *norms.values(), *jax.tree.leaves(found.stats))]
    return norms | {FINITE: jnp.stack(parts).all()}


StepFunction = Callable[[TrainState, Tree, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def make_step(system: System, seed: int, steps_per_epoch: int, mesh: Mesh, accumulate: int = 1) -> StepFunction:
    """One jitted training step over the mesh: (state, frozen networks, source, driving) to (state, metrics), `health` among them.

    `source` and `driving` are the raw pairs, (N, S, S, 3) uint8, split over the devices; the state is donated. Under jit the means over a
    batch, batch norm's among them, are those of the global batch, so the result does not depend on the number of devices but for rounding.
    `accumulate` > 1 works the batch off in so many parts, one after the other, and moves once by the mean of their gradients: less memory,
    but batch statistics are those of each part.
    """
    optimizer = system.optimizer(steps_per_epoch)

    def gradients(state: TrainState, frozen: Tree, source: jax.Array, driving: jax.Array, key: jax.Array) -> Gradients:
        def of_part(variables: Variables, source: jax.Array, driving: jax.Array, key: jax.Array) -> Gradients:
            source, driving = (frames.astype(jnp.float32) / 255.0 for frames in (source, driving))
            return system.gradients(variables, frozen, source, driving, key, state.step, steps_per_epoch)

        if accumulate == 1:
            return of_part(state.variables, source, driving, key)

        def add(carried: tuple[Tree, Tree], part: tuple[jax.Array, ...]) -> tuple[tuple[Tree, Tree], Tree]:
            (summed, stats), (number, source, driving) = carried, part
            found = of_part(Variables(state.params, stats), source, driving, jax.random.fold_in(key, number))
            return (jax.tree.map(jnp.add, summed, found.grads), found.stats), found.metrics

        parts = jnp.arange(accumulate), *(in_parts(mesh, frames, accumulate) for frames in (source, driving))
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        # Within a loop XLA's convs on a CPU are many times slower: there the parts are written out.
        unroll = mesh.devices.flat[0].platform == "cpu"
        (summed, stats), metrics = jax.lax.scan(add, (zeros, state.stats), parts, unroll=unroll)
        grads = jax.tree.map(lambda leaf: leaf / accumulate, summed)
        return Gradients(grads, stats, jax.tree.map(lambda each: each.mean(0), metrics))

    def step(
        state: TrainState, frozen: Tree, source: jax.Array, driving: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # what each device does by itself looks for it
            found = gradients(state, frozen, source, driving, key)
        with jax.named_scope("adam"):
            updates, opt_state = optimizer.update(found.grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, found.stats, opt_state), found.metrics | health(found)

    same, batch = replicated(mesh), split(mesh)
    return jax.jit(step, in_shardings=(same, same, batch, batch), out_shardings=(same, same), donate_argnums=0)
