"""What are our tensors called in a checkpoint of the released code?

A file of the released Perturbed Masks code holds the state of two modules, `generator` (r, l and h) and `mask_generator` (m).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from ml_collections import ConfigDict

from maskanim_jax.systems import released_format
from maskanim_jax.systems.interface import Variables
from maskanim_jax.systems.released_format import Place, Unused

Rows = Iterator[tuple[str, Place | Unused]]


def _conv(theirs: str, *ours: str) -> Rows:
    yield f"{theirs}.weight", Place("params", (*ours, "kernel"), True)
    yield f"{theirs}.bias", Place("params", (*ours, "bias"), False)


def _norm(theirs: str, *ours: str) -> Rows:
    yield f"{theirs}.weight", Place("params", (*ours, "scale"), False)
    yield f"{theirs}.bias", Place("params", (*ours, "bias"), False)
    yield f"{theirs}.running_mean", Place("stats", (*ours, "mean"), False)
    yield f"{theirs}.running_var", Place("stats", (*ours, "var"), False)
    yield f"{theirs}.num_batches_tracked", Unused(np.zeros((), np.int64))


def _block(theirs: str, *ours: str) -> Rows:
    yield from _conv(f"{theirs}.conv", *ours, "conv")
    yield from _norm(f"{theirs}.norm", *ours, "norm")


def _never_run(theirs: str, inputs: int, outputs: int) -> Rows:
    """A down block that the released class allocates and never runs; written as zeros."""
    yield f"{theirs}.conv.weight", Unused(np.zeros((outputs, inputs, 3, 3), np.float32), trained=True)
    yield f"{theirs}.conv.bias", Unused(np.zeros(outputs, np.float32), trained=True)
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        trained = not leaf.startswith("running")
        yield f"{theirs}.norm.{leaf}", Unused(np.zeros(outputs, np.float32), trained=trained)
    yield f"{theirs}.norm.num_batches_tracked", Unused(np.zeros((), np.int64))


def _encoder_decoder(theirs: str, network: str, blocks: int) -> Rows:
    for i in range(blocks):
        yield from _block(f"{theirs}.encoder.down_blocks.{i}", network, "body", f"down{i}")
    for i in range(blocks):
        # Their up blocks are counted in the order in which they run, ours by the encoder's block that they undo.
        yield from _block(f"{theirs}.decoder.up_blocks.{i}", network, "body", f"up{blocks - 1 - i}")


def _blur(step: int) -> np.ndarray:
    """The Gaussian of the anti-aliased downscale by `step`, which they keep as a tensor: (3, 1, K, K) float32."""
    sigma = (step - 1) / 2
    offsets = np.arange(-round(4 * sigma), round(4 * sigma) + 1)
    taps = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    return np.broadcast_to(kernel, (3, 1, *kernel.shape)).astype(np.float32)


def _rows(config: ConfigDict) -> Rows:
    ups = (config.frame_size // config.mask.size).bit_length() - 1
    yield from _block("generator.first", "coarse", "first")
    for i in range(ups):
        inputs = config.coarse.width >> (ups - i)
        yield from _never_run(f"generator.down_blocks.{i}", inputs, 2 * inputs)
    for i in range(ups):
        yield from _block(f"generator.up_blocks.{i}", "coarse", f"up{i}")
    for i in range(config.coarse.residual_blocks):
        for j in (1, 2):
            yield from _conv(f"generator.bottleneck.r{i}.conv{j}", "coarse", f"residual{i}", f"conv{j}")
        for j in (1, 2):
            yield from _norm(f"generator.bottleneck.r{i}.norm{j}", "coarse", f"residual{i}", f"norm{j}")
    yield from _conv("generator.final", "coarse", "last")
    yield from _encoder_decoder("generator.hourglass", "fine", config.fine.blocks)
    yield from _encoder_decoder("generator.mask_fix_net", "refine", config.refine.blocks)
    yield from _conv("generator.ref", "refine", "last")
    yield from _conv("generator.final_hourglass", "fine", "last")
    yield from _encoder_decoder("mask_generator.predictor", "mask", config.mask.blocks)
    yield from _conv("mask_generator.ref", "mask", "last")
    if ups:
        yield "mask_generator.down.weight", Unused(_blur(config.frame_size // config.mask.size), fixed=True)


def layout(config: ConfigDict) -> dict[str, Place | Unused]:
    """Every tensor of a file by full name (`generator.first.conv.weight`), in the file's order, which Adam's state follows."""
    return dict(_rows(config))


def objections(config: ConfigDict) -> list[str]:
    """The settings by which the released code would compute something else from the same tensors."""
    wanted = {
        "mask.border": "zero",
        "mask.normalise_logits": False,
        "mask.logit_offset": 0.0,
        "mask.temperature": 0.1,
        "refine.temperature": 0.1,
    }
    found = {key: config[key.split(".")[0]][key.split(".")[1]] for key in wanted}
    return [f"{key}={found[key]} (there {value})" for key, value in wanted.items() if found[key] != value]


def tensors(config: ConfigDict) -> dict[str, Place]:
    """Their full name to our place, for every tensor that both sides have."""
    return {name: place for name, place in layout(config).items() if isinstance(place, Place)}


def to_variables(theirs: Mapping[str, np.ndarray], config: ConfigDict) -> Variables:
    """Their tensors by full name to our variables; raises KeyError for one that is missing."""
    return released_format.to_variables(theirs, layout(config))


def from_variables(variables: Variables, config: ConfigDict) -> dict[str, np.ndarray]:
    """Our variables (or a tree like the parameters) to their tensors by full name."""
    return released_format.from_variables(variables, layout(config))
