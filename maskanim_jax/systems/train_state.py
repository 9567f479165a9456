"""What is the state of a run at one step? Everything that training needs to resume."""

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
    """`step` counts finished steps. It is also the position in the data: a batch is a function of
    (seed, step).
    """

    step: jax.Array
    params: PyTree
    stats: PyTree
    opt_state: Any
    ema: dict[str, PyTree] | None = None
    """With `optim.ema`, the averaged parameters and statistics, {"params": ..., "stats": ...};
    otherwise None.
    """

    @property
    def variables(self) -> Variables:
        """The current parameters and batch statistics."""
        return Variables(self.params, self.stats)

    @property
    def averaged(self) -> Variables:
        """The variables for evaluation and animation: the averages, or the current ones in a run
        without averages.
        """
        return self.variables if self.ema is None else Variables(**self.ema)

    def saved(self) -> dict[str, Any]:
        """The tree that is saved in a checkpoint; without averages it has no `ema`."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def init_state(system: System, seed: int, steps_per_epoch: int, ema: float = 0.0) -> TrainState:
    """The initial state, a pure function of config and seed. `ema` is the decay of the averages; 0
    means none.
    """
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
    # It runs only once, so on a CPU it is compiled without optimisations: those would dominate the startup time.
    options: dict[str, Any] = {"xla_backend_optimization_level": 0} if mesh.devices.flat[0].platform == "cpu" else {}
    made = jax.jit(
        init_state, static_argnums=(0, 1, 2, 3), out_shardings=replicated_sharding(mesh), compiler_options=options
    )
    state = jax.block_until_ready(made(system, seed, steps_per_epoch, ema))
    trim_host_memory()
    return state


def with_averages(state: TrainState, ema: float, mesh: Mesh) -> TrainState:
    """Adds averages that start here if `ema` > 0 and there are none; removes them if `ema` is 0."""
    if not ema:
        return state._replace(ema=None)
    if state.ema is not None:
        return state
    return state._replace(ema=jax.jit(begin, out_shardings=replicated_sharding(mesh))(state.variables))


def abstract_state(system: System, seed: int, steps_per_epoch: int, ema: float = 0.0) -> TrainState:
    """The shapes and dtypes of a state, without computing it."""
    return jax.eval_shape(lambda: init_state(system, seed, steps_per_epoch, ema))
