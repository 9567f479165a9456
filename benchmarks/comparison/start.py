"""What do all sides start from?

The same config, frames, and weights: as a file in the released format, and as ONNX models.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

SYSTEMS = ("perturbed_masks", "fomm")
CONFIGS = {
    "perturbed_masks": {256: "configs/taichi.py:released", 64: "configs/puppets.py"},
    "fomm": {256: "configs/fomm_taichi.py", 64: "configs/fomm_puppets.py"},
}
"""The compared config, by system and frame size."""
BUNDLED = {"puppets": "puppets", "fomm-puppets": "puppets-fomm"}
"""The checkpoint that a config starts from, by the config's name; others start from
initial values.
"""
STEP_BATCHES = {256: (2,), 64: (4, 8)}


def threads() -> int:
    """The number of cores that this process may use: the number of threads of each side."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def config_of(system: str, size: int) -> Any:
    """The compared config."""
    from maskanim_jax.convert import load_config

    return load_config(CONFIGS[system][size])


def lively(params: Any) -> Any:
    """Initial parameters with larger kernels: with the usual ones, signals vanish in evaluation
    mode and all frames look alike.
    """
    import jax

    def wider(path: Any, leaf: Any) -> Any:
        at = jax.tree_util.keystr(path)
        if leaf.ndim < 4 or "jacobian" in at:  # Jacobians stay the identity
            return leaf
        return leaf * (5 if "last" in at or "'kp'" in at or "'mask'" in at else 6**0.5)

    return jax.tree_util.tree_map_with_path(wider, params)


def start_variables(config: Any, system: Any, task: str) -> Any:
    """The parameters and statistics of all sides for "step" or "animation", on the first device.

    Steps need no larger kernels, with which gradients of FOMM's keypoints at 256 x 256 depend on
    rounding.
    """
    import jax

    if config.name in BUNDLED:
        from maskanim_jax.checkpoints import bundled

        return bundled.load(BUNDLED[config.name]).variables

    def start(key: Any) -> Any:
        fresh = system.init(key)
        return fresh._replace(params=lively(fresh.params)) if task == "animation" else fresh

    return jax.jit(start)(jax.random.key(config.seed))


def unit(frames: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [0, 1]."""
    return frames.astype(np.float32) / 255


def drawn_frames(count: int, side: int, seed: int) -> np.ndarray:
    """(count, side, side, 3) uint8: coloured squares with noise."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 200, (count, 8, 8, 3)).repeat(side // 8, 1).repeat(side // 8, 2)
    return (squares + rng.integers(0, 56, squares.shape)).astype(np.uint8)


def puppet_pairs(count: int, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources and drivers, each (count, side, side, 3) uint8: drawn puppets in two poses."""
    pairs = [puppet_video(13, side, number)[[0, 12]] for number in range(count)]
    return tuple(np.stack(pairs, 1))


def puppet_video(count: int, side: int, number: int) -> np.ndarray:
    """(count, side, side, 3) uint8: successive frames of a drawn puppet that nobody trained on."""
    from input_pipeline.puppets.dataset import clips, render_clip

    clip = clips("test", number + 1, 1, max(count, 2), 0, 2)[number]
    return np.stack([rendering.frame for rendering in render_clip(clip, side)][:count])


def random_numbers(config: Any, batch: int) -> dict[str, np.ndarray]:
    """The random values of a step, the same for all sides: r's input "perturbed" (N, L, L, 1), or
    the warp "theta" (N, 2, 3) and "params" (N, 1, P^2).
    """
    rng = np.random.default_rng(3)
    if config.system == "fomm":
        settings = config.equivariance
        noise = rng.standard_normal((batch, 2, 3)).astype(np.float32)
        params = rng.standard_normal((batch, 1, settings.tps_points**2)).astype(np.float32)
        # The spline's |x - c| has a kink at each c, where rounding decides the sign of a derivative. Initial keypoints lie near the centre or,
        # where a heatmap is a single pixel, exactly at the border: rows and columns there get no weight.
        away = ~np.isin(np.abs(np.linspace(-1, 1, settings.tps_points)).round(6), (0.0, 1.0))
        params *= np.outer(away, away).ravel()
        theta = np.eye(2, 3, dtype=np.float32) + np.float32(settings.affine_sigma) * noise
        return {"theta": theta, "params": np.float32(settings.tps_sigma) * params}
    levels = rng.integers(0, 256, (batch, config.mask.size, config.mask.size, 1))
    return {"perturbed": levels.astype(np.float32) / 255}


def export_weights(folder: Path, config: Any, untrained: bool) -> None:
    """Writes the weights of each task as a file in the released format, and VGG-19.

    The exporter's functions (`file_tree`, `write_tensors`) write the file, even if the released
    code does not support the config (it lacks the small recipe's temperatures and border). Tensors
    and names are the same, and the PyTorch implementation here supports these settings.
    """
    import jax

    from maskanim_jax.conversion.layout import file_tree, modules, released
    from maskanim_jax.losses.vgg import used_weights
    from maskanim_jax.serialization.torch_writer import write_tensors
    from maskanim_jax.systems import build
    from maskanim_jax.training.experiment import vgg_weights

    if untrained:
        config.loss.vgg = "untrained"
    np.savez(folder / "vgg.npz", **used_weights(vgg_weights(config), config.loss.vgg_layers))  # type: ignore[arg-type, unused-ignore]
    layout, system = released(config).layout(config), build(config)
    for task in ("step", "animation"):
        variables = jax.device_get(start_variables(config, system, task))
        write_tensors(
            folder / f"{task}.pth.tar",
            file_tree(variables, {}, {}, layout, 0, {module: {} for module in modules(layout)}),
        )


def export_onnx(folder: Path, config: Any, batch: int) -> None:
    """Exports animation with the same weights as
    `FOLDER/onnx-BATCH/{begin,animate}.onnx`, like `python -m maskanim_jax.export`.
    """
    from maskanim_jax.exporting import functions, onnx_files
    from maskanim_jax.nn.kernels.native.build import disable_native
    from maskanim_jax.systems import build

    there = folder / f"onnx-{batch}"
    system: Any = build(config)
    with disable_native():
        options = system.animation_options({})
        made = functions.functions_of(system, start_variables(config, system, "animation"), options, (system.result,))
        there.mkdir()
        with contextlib.redirect_stdout(None):
            onnx_files.write_onnx(there, made, system.frame_size, batch)
