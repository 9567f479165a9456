"""What does one training step compute?

Gradients, the update of the optimiser, averages and the finite check.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from maskanim_jax.distributed.sharding import batch_sharding, replicated_sharding, to_microbatches
from maskanim_jax.systems.averaging import moved
from maskanim_jax.systems.interface import Gradients, PyTree, System, Variables
from maskanim_jax.systems.train_state import TrainState

FINITE = "finite"
"""The metric that says whether a step is valid."""


def finite_check(found: Gradients) -> dict[str, jax.Array]:
    """`gradient_norm_NETWORK` of each network, float32, and `finite`: whether losses, gradients and
    statistics are all finite.

    A gradient whose norm overflows counts as non-finite: Adam's second moments would overflow too.
    """
    norms = {
        f"gradient_norm_{name}": jnp.asarray(optax.global_norm(grads), jnp.float32)
        for name, grads in found.grads.items()
    }
    losses = [value for name, value in found.metrics.items() if name.startswith("loss")]
    parts = [jnp.isfinite(each).all() for each in (*losses, *norms.values(), *jax.tree.leaves(found.stats))]
    return norms | {FINITE: jnp.stack(parts).all()}


StepFunction = Callable[[TrainState, PyTree, jax.Array, jax.Array], tuple[TrainState, dict[str, jax.Array]]]


def make_train_step(
    system: System, seed: int, steps_per_epoch: int, mesh: Mesh, accumulate: int = 1, ema: float = 0.0
) -> StepFunction:
    """Returns a jitted training step over the mesh: (state, frozen networks, source,
    driving) to (state, metrics).

    `source` and `driving` are the raw pairs, (N, S, S, 3) uint8, sharded over the devices;
    the state is donated. Means over a batch, including batch norm's, are over the global
    batch, so the result does not depend on the number of devices, except for rounding.
    `accumulate` > 1 splits the batch into that many microbatches and applies the mean of
    their gradients: less memory, but batch statistics are per microbatch. `ema` > 0 is the
    decay of the averaged weights in the state.
    """
    optimizer = system.optimizer(steps_per_epoch)

    def gradients(
        state: TrainState, frozen: PyTree, source: jax.Array, driving: jax.Array, key: jax.Array
    ) -> Gradients:
        def of_part(variables: Variables, source: jax.Array, driving: jax.Array, key: jax.Array) -> Gradients:
            source, driving = (frames.astype(jnp.float32) / 255.0 for frames in (source, driving))
            return system.gradients(variables, frozen, source, driving, key, state.step, steps_per_epoch)

        if accumulate == 1:
            return of_part(state.variables, source, driving, key)

        def add(carried: tuple[PyTree, PyTree], part: tuple[jax.Array, ...]) -> tuple[tuple[PyTree, PyTree], PyTree]:
            (summed, stats), (number, source, driving) = carried, part
            found = of_part(Variables(state.params, stats), source, driving, jax.random.fold_in(key, number))
            return (jax.tree.map(jnp.add, summed, found.grads), found.stats), found.metrics

        parts = jnp.arange(accumulate), *(to_microbatches(mesh, frames, accumulate) for frames in (source, driving))
        zeros = jax.tree.map(jnp.zeros_like, state.params)
        # On a CPU, XLA's convs are many times slower inside a loop, so it is unrolled there.
        unroll = mesh.devices.flat[0].platform == "cpu"
        (summed, stats), metrics = jax.lax.scan(add, (zeros, state.stats), parts, unroll=unroll)
        grads = jax.tree.map(lambda leaf: leaf / accumulate, summed)
        return Gradients(grads, stats, jax.tree.map(lambda each: each.mean(0), metrics))

    def step(
        state: TrainState, frozen: PyTree, source: jax.Array, driving: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # per-device code needs the mesh
            found = gradients(state, frozen, source, driving, key)
        with jax.named_scope("adam"):
            updates, opt_state = optimizer.update(found.grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        averages = state.ema
        if averages is not None:
            with jax.named_scope("ema"):
                averages = moved(averages, Variables(params, found.stats), state.step, ema)
        return TrainState(state.step + 1, params, found.stats, opt_state, averages), found.metrics | finite_check(found)

    same, batch = replicated_sharding(mesh), batch_sharding(mesh)
    return jax.jit(step, in_shardings=(same, same, batch, batch), out_shardings=(same, same), donate_argnums=0)
