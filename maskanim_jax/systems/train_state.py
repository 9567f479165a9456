"""What is a run at one step? Everything that training needs to go on."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from maskanim_jax.distributed.sharding import replicated_sharding
from maskanim_jax.systems.averaging import begin
from maskanim_jax.systems.interface import PyTree, System, Variables
from maskanim_jax.utils.memory import trim_host_memory


class TrainState(NamedTuple):
    """`step` counts finished steps; it is also the position in the data, since a batch is a function of (seed, step)."""

    step: jax.Array
    params: PyTree
    stats: PyTree
    opt_state: Any
    ema: dict[str, PyTree] | None = None
    """With `optim.ema` the averages of parameters and batch statistics, {"params": ..., "stats": ...}; otherwise None."""

    @property
    def variables(self) -> Variables:
        """Parameters and batch statistics, as the system takes them."""
        return Variables(self.params, self.stats)

    @property
    def averaged(self) -> Variables:
        """What evaluation and animation use: the averages, or the variables themselves in a run without averages."""
        return self.variables if self.ema is None else Variables(**self.ema)

    def saved(self) -> dict[str, Any]:
        """The tree of a checkpoint; a run without averages has no `ema` in it."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def init_state(system: System, seed: int, steps_per_epoch: int, ema: float = 0.0) -> TrainState:
    """The state before the first step; a pure function of config and seed. `ema`: the decay of the averages, 0 for none."""
    variables = system.init(jax.random.key(seed))
    return TrainState(
        jnp.zeros((), jnp.int32),
        variables.params,
        variables.stats,
        system.optimizer(steps_per_epoch).init(variables.params),
        begin(variables) if ema else None,
    )


def init_on_mesh(system: System, seed: int, steps_per_epoch: int, mesh: Mesh, ema: float = 0.0) -> TrainState:
    """`init_state` on every device of the mesh."""
    # It runs once: on a CPU, where compiling it well takes longer than all else before the first step, that is left out.
    options: dict[str, Any] = {"xla_backend_optimization_level": 0} if mesh.devices.flat[0].platform == "cpu" else {}
    made = jax.jit(
        init_state, static_argnums=(0, 1, 2, 3), out_shardings=replicated_sharding(mesh), compiler_options=options
    )
    state = jax.block_until_ready(made(system, seed, steps_per_epoch, ema))
    trim_host_memory()
    return state


def with_averages(state: TrainState, ema: float, mesh: Mesh) -> TrainState:
    """The state with averages when `ema` > 0 (those it has, or ones that begin here), or without."""
    if not ema:
        return state._replace(ema=None)
    if state.ema is not None:
        return state
    return state._replace(ema=jax.jit(begin, out_shardings=replicated_sharding(mesh))(state.variables))


def abstract_state(system: System, seed: int, steps_per_epoch: int, ema: float = 0.0) -> TrainState:
    """Names and shapes of a state, nothing computed."""
    return jax.eval_shape(lambda: init_state(system, seed, steps_per_epoch, ema))
