"""Which inputs does the benchmark use?

Configs of both systems, frames, and features of the perceptual loss.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from benchmarks.comparison.start import drawn_frames
from maskanim_jax.errors import UserError

SYSTEMS = ("perturbed_masks", "fomm")
RELEASED = {"perturbed_masks": ("taichi", "released"), "fomm": ("fomm_taichi", "full")}
"""The released Tai-Chi settings, 256 x 256."""
REDUCED = {"perturbed_masks": ("puppets", ""), "fomm": ("fomm_puppets", "full")}
"""The recipes for other sizes (multiples of 64 pixels)."""


def config_of(system: str, frame_size: int, precision: str, small: bool = False) -> Any:
    """A config of `system`: the released settings at 256, the reduced recipe otherwise, with very
    narrow networks if `small`.
    """
    name, argument = (RELEASED if frame_size == 256 else REDUCED)[system]
    get_config = importlib.import_module(f"configs.{name}").get_config
    config = get_config(argument) if argument else get_config()
    config.precision = precision
    if frame_size != 256:
        config.frame_size = frame_size
        config.loss.pyramid_sizes = (frame_size, frame_size // 2)
        if system == "perturbed_masks":
            config.mask.size = frame_size // 2
            config.loss.coarse_pyramid_sizes = (frame_size // 2,)
    if small:
        _narrow(config, system)
    return config


def _narrow(config: Any, system: str) -> None:
    """Networks that take milliseconds: for the tests."""
    parts = ("mask", "refine", "fine") if system == "perturbed_masks" else ("keypoints", "motion")
    for part in parts:
        settings = config[part]
        settings.width, settings.num_blocks, settings.max_width = 4, 2, 16
    if system == "perturbed_masks":
        config.coarse.width, config.coarse.residual_blocks = 8, 1
        config.loss.coarse_pyramid_sizes = config.loss.coarse_pyramid_sizes[:1]
    else:
        config.generator.width, config.generator.max_width, config.generator.residual_blocks = 4, 8, 1
    config.loss.pyramid_sizes = config.loss.pyramid_sizes[:1]
    config.loss.vgg_layers = ("relu1_1", "relu2_1")


def features_of(config: Any) -> tuple[dict[str, np.ndarray], str]:
    """VGG-19's arrays for the loss, and "imagenet", or "untrained" if the
    weights were not downloaded.
    """
    from maskanim_jax.losses.vgg import used_names, used_weights
    from maskanim_jax.pretrained.vgg19 import load_vgg19, untrained_vgg19

    try:
        return load_vgg19(only=used_names(config.loss.vgg_layers)), "imagenet"
    except UserError:
        return used_weights(untrained_vgg19(config.seed), config.loss.vgg_layers), "untrained"


def pairs(count: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` pairs of frames of a drawn figure, twice (count, side, side, 3) uint8; coloured
    squares if Pillow is missing.
    """
    try:
        from input_pipeline.puppets.draw import render
        from input_pipeline.puppets.identity import draw_identity
        from input_pipeline.puppets.pose import trajectory
    except ImportError:
        return drawn_frames(count, side, seed), drawn_frames(count, side, seed + 1)
    source, driving = [], []
    for number in range(count):
        identity = draw_identity(seed, number)
        poses = list(trajectory(seed, number, 9))
        source.append(render(identity, poses[0], side).frame)
        driving.append(render(identity, poses[8], side).frame)
    return np.stack(source), np.stack(driving)


def repeated(frames: np.ndarray, count: int) -> np.ndarray:
    """(count, ...): the frames, repeated."""
    return frames[np.arange(count) % len(frames)]
