"""Which names do FOMM's tensors have in a checkpoint of the released code?

A file holds the state of `generator` (which contains the dense motion network), `kp_detector` and
perhaps `discriminator`. The released code writes a discriminator even if the config does not train
it, but published files may lack it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import numpy as np
from ml_collections import ConfigDict

from configs import (
    fomm_bair,
    fomm_fashion,
    fomm_mgif,
    fomm_nemo,
    fomm_taichi,
    fomm_taichi_adv,
    fomm_voxceleb,
    fomm_voxceleb_adv,
)
from maskanim_jax.conversion import layout as released_format
from maskanim_jax.conversion import sizes
from maskanim_jax.conversion.layers import Rows, affine, block, blur, conv, encoder_decoder, residual, spectral_conv
from maskanim_jax.conversion.layout import ParamMapping, Shapes, UnmappedTensor
from maskanim_jax.conversion.recognition import Found, Recognized, assumption
from maskanim_jax.systems.interface import Variables

OPTIONAL_MODULES = ("discriminator",)
"""Modules that a file may lack; they are then initialised."""
_PLAIN = {"vox": fomm_voxceleb, "taichi": fomm_taichi, "fashion": fomm_fashion}
_KEYPOINTS_IN = {"vox": fomm_voxceleb_adv, "taichi": fomm_taichi_adv}
_SPECTRAL_NORM = {"bair": fomm_bair, "nemo": fomm_nemo}
_ONE_JACOBIAN = {"mgif": fomm_mgif}
_DISCRIMINATOR = "discriminator.discs.1.down_blocks"  # the only scale of the released configs
_LOW_SIDE = 64  # of the input of keypoint detector and dense motion in every released config


def recognize(found: Found) -> Recognized | None:
    """The config of a file with FOMM's tensors.

    The discriminator and the Jacobians tell the released configs apart.
    """
    given = found.shapes
    inside = "generator.dense_motion_network."
    if not all(any(name.startswith(start) for name in given) for start in (inside, "kp_detector.")):
        return None
    options = _configs(found)
    named = [name for name in options if name in found.name]
    chosen = named[0] if named else next(iter(options))
    config = options[chosen].get_config()
    _set_sizes(config, given)
    _set_discriminator(config, found)
    others = [f"configs/{module.__name__.rpartition('.')[2]}.py" for name, module in options.items() if name != chosen]
    assumed = assumption(chosen, others, bool(named), "for training")
    if config.frame_size != 256:
        assumed.append(
            f"the tensors do not determine the frame size: {config.frame_size} pixels assumed, since keypoints are detected at 1/"
            f"{round(1 / config.keypoints.scale)} of it"
        )
    return Recognized(f"FOMM ({chosen}{'-adv' * (options is _KEYPOINTS_IN)})", config, assumed)


def _configs(found: Found) -> dict[str, ModuleType]:
    """The released configs with networks of these sizes, by data set, the likeliest first."""
    given, first = found.shapes, f"{_DISCRIMINATOR}.0.conv"
    if sizes.outputs(given, "kp_detector.jacobian") == 4 and sizes.outputs(given, "kp_detector.kp") > 1:
        return _ONE_JACOBIAN
    if f"{first}.weight_orig" in given:
        # BAIR is trained for 20 epochs, counted from 0, and Nemo for 100.
        return dict(reversed(_SPECTRAL_NORM.items())) if (found.epoch or 0) >= 20 else _SPECTRAL_NORM
    if sizes.inputs(given, first) > 3 or (first not in given and "adv" in found.name):
        return _KEYPOINTS_IN
    # Every file has a discriminator, but of these only Fashion's is trained.
    return dict(reversed(_PLAIN.items())) if "discriminator" in found.updated else _PLAIN


def _set_sizes(config: ConfigDict, given: Shapes) -> None:
    """The sizes and optional parts that can be determined from the file."""
    inside = "generator.dense_motion_network"
    steps = []
    for section, prefix, body in (
        (config.keypoints, "kp_detector", "predictor"),
        (config.motion, inside, "hourglass"),
    ):
        if found := sizes.encoder_decoder(given, f"{prefix}.{body}"):
            section.update(found)
            section.scale = 1 / sizes.downscale(given, f"{prefix}.down")
            steps.append(round(1 / section.scale))
    if count := sizes.outputs(given, "kp_detector.kp"):
        config.keypoints.num_keypoints = count
        jacobian = sizes.outputs(given, "kp_detector.jacobian")
        config.keypoints.jacobian = bool(jacobian)
        config.keypoints.single_jacobian = jacobian == 4 and count > 1
    if sizes.outputs(given, f"{inside}.mask"):
        config.motion.occlusion = bool(sizes.outputs(given, f"{inside}.occlusion"))
    if width := sizes.outputs(given, "generator.first.conv"):
        config.generator.width = width
    if blocks := sizes.count(given, "generator.down_blocks."):
        last = sizes.outputs(given, f"generator.down_blocks.{blocks - 1}.conv")
        config.generator.down_blocks = blocks
        config.generator.max_width = last if last < width << blocks else max(512, last)
        config.generator.residual_blocks = sizes.count(given, "generator.bottleneck.r")
    if steps and steps[0] > 1:
        config.frame_size = _LOW_SIDE * steps[0]
        config.loss.pyramid_sizes = tuple(config.frame_size >> i for i in range(4))


def _set_discriminator(config: ConfigDict, found: Found) -> None:
    if row := sizes.doubling(found.shapes, f"{_DISCRIMINATOR}.{{}}.conv", 512, first=2):
        config.discriminator.update(row)
        config.discriminator.keypoints = sizes.inputs(found.shapes, f"{_DISCRIMINATOR}.0.conv") > 3
        config.discriminator.spectral_norm = f"{_DISCRIMINATOR}.0.conv.weight_orig" in found.shapes
        if "discriminator" in found.updated:
            config.discriminator.enabled = True


def _generator(config: ConfigDict) -> Rows:
    motion, sizes = config.motion, config.generator
    inside = "generator.dense_motion_network"
    yield from encoder_decoder(f"{inside}.hourglass", motion.num_blocks, "generator", "dense_motion", "body")
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
    yield from encoder_decoder("kp_detector.predictor", config.keypoints.num_blocks, "keypoints", "body")
    yield from conv("kp_detector.kp", "keypoints", "kp")
    if config.keypoints.jacobian:
        yield from conv("kp_detector.jacobian", "keypoints", "jacobian")
    yield from blur("kp_detector.down", round(1 / config.keypoints.scale))


def _discriminator(config: ConfigDict) -> Rows:
    layer = spectral_conv if config.discriminator.spectral_norm else conv
    there = "discriminator.discs.1"  # the only scale of the released configs
    for i in range(config.discriminator.num_blocks):
        yield from layer(f"{there}.down_blocks.{i}.conv", "discriminator", f"block{i}", "conv")
        if i:
            yield from affine(f"{there}.down_blocks.{i}.norm", "discriminator", f"block{i}", "norm")
    yield from layer(f"{there}.conv", "discriminator", "last")


def _idle(given: Shapes) -> Rows:
    """The discriminator of a config that does not train it: stored
    unchanged, for a later export.
    """
    for name, shape in given.items():
        if name.startswith("discriminator."):
            yield name, UnmappedTensor(np.zeros(shape, np.float32), trained=not name.endswith(("_u", "_v")))


def layout(config: ConfigDict, given: Shapes | None = None) -> dict[str, ParamMapping | UnmappedTensor]:
    """Every tensor of a file by full name, in the file's order, which is also the order of Adam's
    state; `given`: the shapes that the file has.
    """
    adversarial = config.discriminator.enabled
    rows = [_generator(config), _keypoints(config), _discriminator(config) if adversarial else _idle(given or {})]
    return {name: at for part in rows for name, at in part}


def unsupported_settings(config: ConfigDict) -> list[str]:
    """The settings with which the released code would compute something
    else from the same tensors.
    """
    wanted = {"keypoints.temperature": 0.1, "motion.variance": 0.01}
    if config.discriminator.enabled:
        wanted["discriminator.variance"] = 0.01
    found = {key: config[key.split(".")[0]][key.split(".")[1]] for key in wanted}
    return [f"{key}={found[key]} (released: {value})" for key, value in wanted.items() if found[key] != value]


def as_published(config: ConfigDict) -> list[str]:
    """Sets the fields in which the published files were trained differently from the config;
    returns a message for each.
    """
    if config.align_corners:
        return []
    config.align_corners = True
    return [
        "sampling is corner-aligned, since the published checkpoints were trained so: give --config.align_corners=True with --config"
    ]


def to_variables(theirs: Mapping[str, np.ndarray], config: ConfigDict) -> Variables:
    """Converts a file's tensors, by full name, to variables; raises KeyError for a missing one."""
    return released_format.to_variables(theirs, layout(config))


def from_variables(variables: Variables, config: ConfigDict) -> dict[str, np.ndarray]:
    """Converts variables (or a tree like the parameters) to a file's tensors, by full name."""
    return released_format.from_variables(variables, layout(config))
