"""What does a worker of the comparison do in JAX? It calls the same functions as the commands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.comparison.start import start_variables, unit


class OurSide:
    """Runs training steps or animation of a config's system."""

    def __init__(self, config: Any, vgg: Mapping[str, np.ndarray], task: str, batch: int) -> None:
        from maskanim_jax.distributed import setup
        from maskanim_jax.distributed.sharding import make_mesh, replicate
        from maskanim_jax.losses.vgg import used_weights
        from maskanim_jax.systems import build
        from maskanim_jax.systems.train_state import init_on_mesh
        from maskanim_jax.training.step import make_train_step

        setup.configure_jax(config)
        self.config = config
        self.system: Any = build(config)
        if task == "step":
            self.mesh = make_mesh(batch)

            # One step per epoch: r is trained from the second step on.
            fresh = init_on_mesh(self.system, config.seed, 1, self.mesh)
            started = replicate(self.mesh, start_variables(config, self.system, task))
            self.state = fresh._replace(params=started.params, stats=started.stats)
            self.frozen = replicate(self.mesh, used_weights(vgg, config.loss.vgg_layers))
            self.run = make_train_step(self.system, config.seed, 1, self.mesh)
        else:
            self.variables = start_variables(config, self.system, task)

    def compare(
        self, source: np.ndarray, driving: np.ndarray, numbers: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Losses and gradient norms of one batch without augmentation; `numbers` replace the random
        values (see `start.random_numbers`).
        """
        import jax

        from maskanim_jax.distributed.sharding import batch_sharding, replicated_sharding, shard_batch

        losses = _fomm_losses if self.config.system == "fomm" else _perturbed_masks_losses

        def total(params: Any, stats: Any, frozen: Any, source: Any, driving: Any, numbers: Any) -> Any:
            found = losses(self.system, params, stats, frozen, source, driving, numbers)
            return sum(found.values()), found

        same, parts = replicated_sharding(self.mesh), batch_sharding(self.mesh)
        run = jax.jit(jax.value_and_grad(total, has_aux=True), in_shardings=(same, same, same, parts, parts, parts))
        placed = {name: shard_batch(self.mesh, value) for name, value in numbers.items()}
        batch = [shard_batch(self.mesh, unit(x)) for x in (source, driving)]
        (_, found), grads = run(self.state.params, self.state.stats, self.frozen, *batch, placed)
        norms = {
            name: sum(float(np.square(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(tree)) ** 0.5
            for name, tree in grads.items()
        }
        return {"losses": {name: float(value) for name, value in found.items()}, "norms": norms}

    def step(self, source: np.ndarray, driving: np.ndarray, count: int) -> float:
        """Seconds for one of `count` training steps."""
        import jax

        from maskanim_jax.distributed.sharding import shard_batch

        began = time.perf_counter()
        for _ in range(count):
            batch = [shard_batch(self.mesh, frames) for frames in (source, driving)]
            self.state, metrics = self.run(self.state, self.frozen, *batch)
        jax.block_until_ready((self.state, metrics))
        if not np.isfinite(metrics["loss"]):
            raise FloatingPointError("the loss is not finite")
        return (time.perf_counter() - began) / count

    def animate(self, source: np.ndarray, video: np.ndarray, way: str) -> tuple[float, np.ndarray]:
        """(seconds per frame, frames), in batches of `way`."""
        from maskanim_jax.animation.generate import animate

        options, name = self.system.animation_options({}), self.system.result
        began = time.perf_counter()
        shown = animate(self.system, self.variables, source, video, options, names=(name,), batch=int(way))
        frames = [pictures[name] for pictures in shown]
        return (time.perf_counter() - began) / len(video), np.stack(frames)


def _perturbed_masks_losses(
    system: Any, params: Any, stats: Any, frozen: Any, source: Any, driving: Any, numbers: Any
) -> dict[str, Any]:
    """P_train returns `numbers["perturbed"]`."""
    import jax

    from maskanim_jax.systems.perturbed_masks import system as module

    original = module.p_train
    module.p_train = lambda *_: numbers["perturbed"]
    try:
        return system.losses(params, stats, frozen, source, driving, driving, jax.random.key(0), True)[0]
    finally:
        module.p_train = original


def _fomm_losses(
    system: Any, params: Any, stats: Any, frozen: Any, source: Any, driving: Any, numbers: Any
) -> dict[str, Any]:
    """The warp is `numbers["theta"]` and `numbers["params"]`."""
    import jax

    from maskanim_jax.systems.fomm.equivariance import Warp, control_grid
    from maskanim_jax.systems.fomm.losses import losses

    warp = Warp(numbers["theta"], control_grid(system.config.equivariance.tps_points), numbers["params"])
    return losses(system, params, stats, frozen, source, driving, driving, jax.random.key(0), warp)[0]
