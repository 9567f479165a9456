"""Which names do Perturbed Masks' tensors have in a checkpoint of the released code?

A file holds the state of two modules, `generator` (r, l and h) and `mask_generator` (m).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ml_collections import ConfigDict

from configs import bair, taichi, voxceleb
from maskanim_jax.conversion import layout as released_format
from maskanim_jax.conversion import sizes
from maskanim_jax.conversion.layers import Rows, block, blur, conv, encoder_decoder, residual
from maskanim_jax.conversion.layout import ParamMapping, Shapes, UnmappedTensor
from maskanim_jax.conversion.recognition import Found, Recognized, assumption
from maskanim_jax.systems.interface import Variables

OPTIONAL_MODULES = ()
"""Modules that a file may lack: none, since every file has both."""
_CONFIGS = {"taichi": taichi, "bair": bair, "vox": voxceleb}


def recognize(found: Found) -> Recognized | None:
    """The config of a file with Perturbed Masks' tensors, which are the same for all three data
    sets.
    """
    given = found.shapes
    if not any(name.startswith("mask_generator.") for name in given):
        return None
    named = [name for name in _CONFIGS if name in found.name]
    chosen = named[0] if named else "taichi"
    config = _CONFIGS[chosen].get_config("released")
    _set_sizes(config, given)
    others = [
        f"configs/{module.__name__.rpartition('.')[2]}.py:released"
        for name, module in _CONFIGS.items()
        if name != chosen
    ]
    matters = f"for training and for the threshold, {config.perturb.test_threshold} of 255 here"
    return Recognized(f"Perturbed Masks ({chosen})", config, assumption(chosen, others, bool(named), matters))


def _set_sizes(config: ConfigDict, given: Shapes) -> None:
    """The sizes that can be determined from the file."""
    for section, prefix in (
        (config.mask, "mask_generator.predictor"),
        (config.refine, "generator.mask_fix_net"),
        (config.fine, "generator.hourglass"),
    ):
        section.update(sizes.encoder_decoder(given, prefix))
    if width := sizes.outputs(given, "generator.first.conv"):
        config.coarse.width = width
    if ups := sizes.count(given, "generator.up_blocks."):
        config.mask.size = config.frame_size >> ups
        config.coarse.residual_blocks = sizes.count(given, "generator.bottleneck.r")


def _never_run(theirs: str, inputs: int, outputs: int) -> Rows:
    """A down block that the released class allocates and never runs; written as zeros."""
    yield f"{theirs}.conv.weight", UnmappedTensor(np.zeros((outputs, inputs, 3, 3), np.float32), trained=True)
    yield f"{theirs}.conv.bias", UnmappedTensor(np.zeros(outputs, np.float32), trained=True)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        trained = not leaf.startswith("running")
        yield f"{theirs}.norm.{leaf}", UnmappedTensor(np.zeros(outputs, np.float32), trained=trained)
    yield f"{theirs}.norm.num_batches_tracked", UnmappedTensor(np.zeros((), np.int64))


def _rows(config: ConfigDict) -> Rows:
    ups = (config.frame_size // config.mask.size).bit_length() - 1
    yield from block("generator.first", "coarse", "first")
    for i in range(ups):
        inputs = config.coarse.width >> (ups - i)
        yield from _never_run(f"generator.down_blocks.{i}", inputs, 2 * inputs)
    for i in range(ups):
        yield from block(f"generator.up_blocks.{i}", "coarse", f"up{i}")
    for i in range(config.coarse.residual_blocks):
        yield from residual(f"generator.bottleneck.r{i}", "coarse", f"residual{i}")
    yield from conv("generator.final", "coarse", "last")
    yield from encoder_decoder("generator.hourglass", config.fine.num_blocks, "fine", "body")
    yield from encoder_decoder("generator.mask_fix_net", config.refine.num_blocks, "refine", "body")
    yield from conv("generator.ref", "refine", "last")
    yield from conv("generator.final_hourglass", "fine", "last")
    yield from encoder_decoder("mask_generator.predictor", config.mask.num_blocks, "mask", "body")
    yield from conv("mask_generator.ref", "mask", "last")
    yield from blur("mask_generator.down", config.frame_size // config.mask.size)


def layout(config: ConfigDict, given: Shapes | None = None) -> dict[str, ParamMapping | UnmappedTensor]:
    """Every tensor of a file by full name (`generator.first.conv.weight`), in the file's order,
    which is also the order of Adam's state.
    """
    del given  # all files of one size have the same tensors
    return dict(_rows(config))


def unsupported_settings(config: ConfigDict) -> list[str]:
    """The settings with which the released code would compute something
    else from the same tensors.
    """
    wanted = {
        "mask.border": "zero",
        "mask.normalise_logits": False,
        "mask.logit_offset": 0.0,
        "mask.temperature": 0.1,
        "refine.temperature": 0.1,
        "mask.temperature_steps": 0,
        "refine.temperature_steps": 0,
    }
    found = {key: config[key.split(".")[0]][key.split(".")[1]] for key in wanted}
    return [f"{key}={found[key]} (released: {value})" for key, value in wanted.items() if found[key] != value]


def as_published(config: ConfigDict) -> list[str]:
    """Changes nothing: no file was published, so no difference from the config is known."""
    del config
    return []


def tensors(config: ConfigDict) -> dict[str, ParamMapping]:
    """(full PyTorch name, location here) of every tensor that both sides have."""
    return {name: place for name, place in layout(config).items() if isinstance(place, ParamMapping)}


def to_variables(theirs: Mapping[str, np.ndarray], config: ConfigDict) -> Variables:
    """Converts a file's tensors, by full name, to variables; raises KeyError for a missing one."""
    return released_format.to_variables(theirs, layout(config))


def from_variables(variables: Variables, config: ConfigDict) -> dict[str, np.ndarray]:
    """Converts variables (or a tree like the parameters) to a file's tensors, by full name."""
    return released_format.from_variables(variables, layout(config))
