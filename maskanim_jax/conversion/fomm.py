"""What are our tensors called in a checkpoint of the released FOMM code?

A file holds the state of `generator` (with the dense motion inside), `kp_detector` and, perhaps, `discriminator`: the released code writes
one whether or not a config trains it, but published files may be without.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from maskanim_jax.conversion import layout as released_format
from maskanim_jax.conversion.layers import Rows, affine, block, blur, conv, encoder_decoder, residual, spectral_conv
from maskanim_jax.conversion.layout import Place, Shapes, Unused
from maskanim_jax.systems.interface import Variables

MAY_LACK = ("discriminator",)
"""Modules that a file may be without: they begin afresh."""


def _generator(config: ConfigDict) -> Rows:
    motion, sizes = config.motion, config.generator
    inside = "generator.dense_motion_network"
    yield from encoder_decoder(f"{inside}.hourglass", motion.blocks, "generator", "dense_motion", "body")
    yield from conv(f"{inside}.mask", "generator", "dense_motion", "mask")
    if motion.occlusion:
        yield from conv(f"{inside}.occlusion", "generator", "dense_motion", "occlusion")
    yield from blur(f"{inside}.down", round(1 / motion.scale))
    yield from block("generator.first", "generator", "first")
    for i in range(sizes.down_blocks):
        yield from block(f"generator.down_blocks.{i}", "generator", f"down{i}")
    for i in range(sizes.down_blocks):
        yield from block(f"generator.up_blocks.{i}", "generator", f"up{i}")
    for i in range(sizes.residual_blocks):
        yield from residual(f"generator.bottleneck.r{i}", "generator", f"residual{i}")
    yield from conv("generator.final", "generator", "last")


def _keypoints(config: ConfigDict) -> Rows:
    yield from encoder_decoder("kp_detector.predictor", config.keypoints.blocks, "keypoints", "body")
    yield from conv("kp_detector.kp", "keypoints", "kp")
    if config.keypoints.jacobian:
        yield from conv("kp_detector.jacobian", "keypoints", "jacobian")
    yield from blur("kp_detector.down", round(1 / config.keypoints.scale))


def _discriminator(config: ConfigDict) -> Rows:
    layer = spectral_conv if config.discriminator.spectral_norm else conv
    there = "discriminator.discs.1"  # the only scale of the released configs
    for i in range(config.discriminator.blocks):
        yield from layer(f"{there}.down_blocks.{i}.conv", "discriminator", f"block{i}", "conv")
        if i:
            yield from affine(f"{there}.down_blocks.{i}.norm", "discriminator", f"block{i}", "norm")
    yield from layer(f"{there}.conv", "discriminator", "last")


def _idle(given: Shapes) -> Rows:
    """The discriminator of a config that does not train it: whatever the file has, kept for the way back."""
    for name, shape in given.items():
        if name.startswith("discriminator."):
            yield name, Unused(np.zeros(shape, np.float32), trained=not name.endswith(("_u", "_v")))


def layout(config: ConfigDict, given: Shapes | None = None) -> dict[str, Place | Unused]:
    """Every tensor of a file by full name, in the file's order, which Adam's state follows; `given`: what a file has."""
    adversarial = config.discriminator.enabled
    rows = [_generator(config), _keypoints(config), _discriminator(config) if adversarial else _idle(given or {})]
    return {name: at for part in rows for name, at in part}


def objections(config: ConfigDict) -> list[str]:
    """The settings by which the released code would compute something else from the same tensors."""
    wanted = {"keypoints.temperature": 0.1, "motion.variance": 0.01}
    if config.discriminator.enabled:
        wanted["discriminator.variance"] = 0.01
    found = {key: config[key.split(".")[0]][key.split(".")[1]] for key in wanted}
    return [f"{key}={found[key]} (there {value})" for key, value in wanted.items() if found[key] != value]


def as_published(config: ConfigDict) -> list[str]:
    """Sets what the published files were trained with and the config has otherwise; a sentence for each."""
    if config.corners:
        return []
    config.corners = True
    return [
        "corner-aligned sampling (config.corners=True), as the published checkpoints were trained: give --config.corners=True beside --config"
    ]


def to_variables(theirs: Mapping[str, np.ndarray], config: ConfigDict) -> Variables:
    """Their tensors by full name to our variables; raises KeyError for one that is missing."""
    return released_format.to_variables(theirs, layout(config))


def from_variables(variables: Variables, config: ConfigDict) -> dict[str, np.ndarray]:
    """Our variables (or a tree like the parameters) to their tensors by full name."""
    return released_format.from_variables(variables, layout(config))
