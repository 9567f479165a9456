"""Our side of the comparison with PyTorch, and what both sides start from: weights, frames, config."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

CONFIGS = {256: ("configs/taichi.py:released", (2,)), 64: ("configs/puppets.py", (4, 8))}
"""Side of the frames: the config, and the batches of its training steps."""


class OurSide:
    """What a worker of the comparison does in JAX, by the functions that the commands use."""

    def __init__(self, config: Any, vgg: dict[str, np.ndarray], task: str, batch: int) -> None:
        import jax

        from maskanim_jax.distributed import setup
        from maskanim_jax.distributed.sharding import everywhere, make_mesh
        from maskanim_jax.losses.vgg import used_weights
        from maskanim_jax.systems import build
        from maskanim_jax.training.step import fresh_state, make_step

        setup.prepare(config)
        self.config = config
        self.system: Any = build(config)
        if task == "step":
            self.mesh = make_mesh(batch)

            # An epoch of one step: r is trained from the second on.
            fresh = fresh_state(self.system, config.seed, 1, self.mesh)
            self.state = fresh._replace(params=jax.jit(lively, donate_argnums=0)(fresh.params))
            self.frozen = everywhere(self.mesh, used_weights(vgg, config.loss.taps))
            self.run = make_step(self.system, config.seed, 1, self.mesh)
        else:
            self.variables = lively_variables(self.system, config.seed)

    def compare(self, source: np.ndarray, driving: np.ndarray, perturbed: np.ndarray) -> dict[str, dict[str, float]]:
        """Losses and gradient norms of one batch without augmentation; `perturbed` (N, L, L, 1) stands for P_train's output."""
        import jax

        from maskanim_jax.distributed.sharding import replicated, split, to_devices
        from maskanim_jax.systems.perturbed_masks import system as system_module

        def total(params: Any, stats: Any, frozen: Any, source: Any, driving: Any, perturbed: Any) -> Any:
            system_module.p_train = lambda *_: perturbed
            found = self.system.losses(params, stats, frozen, source, driving, driving, jax.random.key(0), True)[0]
            return sum(found.values()), found

        same, parts = replicated(self.mesh), split(self.mesh)
        run = jax.jit(jax.value_and_grad(total, has_aux=True), in_shardings=(same, same, same, parts, parts, parts))
        batch = [to_devices(self.mesh, x) for x in (unit(source), unit(driving), perturbed)]
        original = system_module.p_train
        try:
            (_, losses), grads = run(self.state.params, self.state.stats, self.frozen, *batch)
        finally:
            system_module.p_train = original
        norms = {
            name: sum(float(np.square(np.asarray(leaf, np.float64)).sum()) for leaf in jax.tree.leaves(tree)) ** 0.5
            for name, tree in grads.items()
        }
        return {"losses": {name: float(value) for name, value in losses.items()}, "norms": norms}

    def step(self, source: np.ndarray, driving: np.ndarray, count: int) -> float:
        """Seconds for one of `count` training steps."""
        import jax

        from maskanim_jax.distributed.sharding import to_devices

        began = time.perf_counter()
        for _ in range(count):
            batch = [to_devices(self.mesh, frames) for frames in (source, driving)]
            self.state, metrics = self.run(self.state, self.frozen, *batch)
        jax.block_until_ready((self.state, metrics))
        if not np.isfinite(metrics["loss"]):
            raise FloatingPointError("the loss is not finite")
        return (time.perf_counter() - began) / count

    def animate(self, source: np.ndarray, video: np.ndarray, way: str) -> tuple[float, np.ndarray]:
        """(seconds for a frame, fine frames); there is one way only."""
        from maskanim_jax.animate import animate

        options = self.system.animation_options({})
        began = time.perf_counter()
        frames = [
            pictures["fine"]
            for pictures in animate(self.system, self.variables, source, video, options, names=("fine",))
        ]
        return (time.perf_counter() - began) / len(video), np.stack(frames)


def lively(params: Any) -> Any:
    """Fresh parameters with wider kernels: in evaluation mode the initial ones let every signal die out, and all frames look alike."""
    import jax

    def wider(path: Any, leaf: Any) -> Any:
        return leaf if leaf.ndim < 4 else leaf * (5 if "last" in jax.tree_util.keystr(path) else 6**0.5)

    return jax.tree_util.tree_map_with_path(wider, params)


def lively_variables(system: Any, seed: int) -> Any:
    """What both sides start from."""
    import jax

    def start(key: Any) -> Any:
        fresh = system.init(key)
        return fresh._replace(params=lively(fresh.params))

    return jax.jit(start)(jax.random.key(seed))


def unit(frames: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [0, 1]."""
    return frames.astype(np.float32) / 255


def drawn_frames(count: int, side: int, seed: int) -> np.ndarray:
    """(count, side, side, 3) uint8: coloured squares with noise."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 200, (count, 8, 8, 3)).repeat(side // 8, 1).repeat(side // 8, 2)
    return (squares + rng.integers(0, 56, squares.shape)).astype(np.uint8)


def config_of(size: int) -> Any:
    """The config that is compared at this size."""
    from maskanim_jax.convert import load_config

    return load_config(CONFIGS[size][0])


def export(folder: Path, size: int, untrained: bool) -> None:
    """Writes what both sides start from: fresh weights as a file of the released format, and VGG-19.

    The file is the exporter's own (`file_tree`, `write_tensors`) also where the released code could not follow the config, as it lacks the
    small recipe's temperatures and border: tensors and names are the same, and the PyTorch writing knows these settings.
    """
    import jax

    from maskanim_jax.conversion.layout import file_tree, modules, released
    from maskanim_jax.losses.vgg import used_weights
    from maskanim_jax.serialization.torch_writer import write_tensors
    from maskanim_jax.systems import build
    from maskanim_jax.training.loop import vgg_weights

    config = config_of(size)
    if untrained:
        config.loss.vgg = "untrained"
    np.savez(folder / "vgg.npz", **used_weights(vgg_weights(config), config.loss.taps))  # type: ignore[arg-type, unused-ignore]
    layout, system = released(config).layout(config), build(config)
    variables = jax.device_get(lively_variables(system, config.seed))
    write_tensors(
        folder / "weights.pth.tar",
        file_tree(variables, {}, {}, layout, 0, {module: {} for module in modules(layout)}),
    )
