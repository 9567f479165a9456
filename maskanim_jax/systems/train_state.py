"""What is a run at one step? Everything that training needs to go on."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from maskanim_jax.distributed.sharding import replicated
from maskanim_jax.systems.interface import System, Tree, Variables
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


def abstract_state(system: System, seed: int, steps_per_epoch: int) -> TrainState:
    """Names and shapes of a state, nothing computed."""
    return jax.eval_shape(lambda: init_state(system, seed, steps_per_epoch))
