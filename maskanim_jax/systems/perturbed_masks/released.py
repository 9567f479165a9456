"""What are our tensors called in a checkpoint of the released code?

A file of the released Perturbed Masks code holds the state of two modules, `generator` (r, l and h) and `mask_generator` (m). Conv kernels
are O, I, H, W there and H, W, I, O here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from maskanim_jax.systems.interface import Variables


class Place(NamedTuple):
    """Where one of their tensors lives here: "params" or "stats", then the path; kernels are transposed."""

    collection: str
    path: tuple[str, ...]
    kernel: bool


def _conv(theirs: str, *ours: str) -> Iterator[tuple[str, Place]]:
    yield f"{theirs}.weight", Place("params", (*ours, "kernel"), True)
    yield f"{theirs}.bias", Place("params", (*ours, "bias"), False)


def _norm(theirs: str, *ours: str) -> Iterator[tuple[str, Place]]:
    yield f"{theirs}.weight", Place("params", (*ours, "scale"), False)
    yield f"{theirs}.bias", Place("params", (*ours, "bias"), False)
    yield f"{theirs}.running_mean", Place("stats", (*ours, "mean"), False)
    yield f"{theirs}.running_var", Place("stats", (*ours, "var"), False)


def _block(theirs: str, *ours: str) -> Iterator[tuple[str, Place]]:
    yield from _conv(f"{theirs}.conv", *ours, "conv")
    yield from _norm(f"{theirs}.norm", *ours, "norm")


def _encoder_decoder(theirs: str, network: str, blocks: int) -> Iterator[tuple[str, Place]]:
    for i in range(blocks):
        yield from _block(f"{theirs}.encoder.down_blocks.{i}", network, "body", f"down{i}")
        # Their up blocks are counted in the order in which they run, ours by the encoder's block that they undo.
        yield from _block(f"{theirs}.decoder.up_blocks.{i}", network, "body", f"up{blocks - 1 - i}")


def tensors(config: ConfigDict) -> dict[str, Place]:
    """Their full name (`generator.first.conv.weight`) to our place, for every tensor that both sides have."""
    ups = (config.frame_size // config.mask.size).bit_length() - 1

    def all_of_them() -> Iterator[tuple[str, Place]]:
        yield from _encoder_decoder("mask_generator.predictor", "mask", config.mask.blocks)
        yield from _conv("mask_generator.ref", "mask", "last")
        yield from _encoder_decoder("generator.mask_fix_net", "refine", config.refine.blocks)
        yield from _conv("generator.ref", "refine", "last")
        yield from _block("generator.first", "coarse", "first")
        for i in range(config.coarse.residual_blocks):
            for j in (1, 2):
                yield from _norm(f"generator.bottleneck.r{i}.norm{j}", "coarse", f"residual{i}", f"norm{j}")
                yield from _conv(f"generator.bottleneck.r{i}.conv{j}", "coarse", f"residual{i}", f"conv{j}")
        for i in range(ups):
            yield from _block(f"generator.up_blocks.{i}", "coarse", f"up{i}")
        yield from _conv("generator.final", "coarse", "last")
        yield from _encoder_decoder("generator.hourglass", "fine", config.fine.blocks)
        yield from _conv("generator.final_hourglass", "fine", "last")

    return dict(all_of_them())


def _put(tree: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value


def to_variables(theirs: Mapping[str, np.ndarray], config: ConfigDict) -> Variables:
    """Their tensors by full name to our variables; raises KeyError for one that is missing."""
    trees: dict[str, dict[str, Any]] = {"params": {}, "stats": {}}
    for name, place in tensors(config).items():
        value = np.asarray(theirs[name], np.float32)
        _put(trees[place.collection], place.path, value.transpose(2, 3, 1, 0) if place.kernel else value)
    return Variables(trees["params"], trees["stats"])


def from_variables(variables: Variables, config: ConfigDict) -> dict[str, np.ndarray]:
    """Our variables (or a tree like the parameters) to their tensors by full name."""
    found = {}
    for name, place in tensors(config).items():
        leaf: Any = getattr(variables, place.collection)
        for key in place.path:
            leaf = leaf[key]
        leaf = np.asarray(leaf)
        found[name] = leaf.transpose(3, 2, 0, 1) if place.kernel else leaf
    return found
