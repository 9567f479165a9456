"""How does MobileNetV2 embed a frame? As 1280 numbers, a stand-in for person re-identification.

The network was trained to classify ImageNet's pictures, not to distinguish people, and the
background affects its embedding. Batch norms are folded into the preceding convolutions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.pretrained.arrays import Arrays, find_arrays
from maskanim_jax.pretrained.backends.interface import Embedded, Subject
from maskanim_jax.pretrained.registry import NETWORKS
from maskanim_jax.utils.batches import padded_batches

SIZE = 224
DIMENSIONS = 1280
BATCH = 8

_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repetitions and first stride of each group of blocks (Table 2 of Sandler et
al. 2018).
"""
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_EPSILON = 1e-5  # of the batch norms


class _Conv(NamedTuple):
    """One convolution: its position in PyTorch's dict (its batch norm is the next
    entry), and its settings.
    """

    weight: str
    norm: str
    side: int
    inside: int
    outside: int
    stride: int = 1
    depthwise: bool = False
    bent: bool = True  # followed by ReLU6
    begins: bool = False  # starts a block, whose input is kept
    adds: bool = False  # adds the block's input to its output


def _convs() -> Iterator[_Conv]:
    yield _Conv("features.0.0", "features.0.1", 3, 3, 32, 2)
    channels, number = 32, 0
    for expansion, outside, repetitions, first in _BLOCKS:
        for repetition in range(repetitions):
            number += 1
            wide, stride = channels * expansion, first if repetition == 0 else 1
            name = [f"features.{number}.conv.{i}" for i in range(8)]
            if expansion > 1:
                yield _Conv(name[0], name[1], 1, channels, wide, begins=True)
            at = 3 if expansion > 1 else 0
            yield _Conv(name[at], name[at + 1], 3, wide, wide, stride, depthwise=True, begins=expansion == 1)
            adds = stride == 1 and channels == outside
            yield _Conv(name[at + 3], name[at + 4], 1, wide, outside, bent=False, adds=adds)
            channels = outside
    yield _Conv(f"features.{number + 1}.0", f"features.{number + 1}.1", 1, channels, DIMENSIONS)


CONVS = tuple(_convs())


def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of the folded arrays, by name."""
    result: dict[str, tuple[int, ...]] = {}
    for number, conv in enumerate(CONVS):
        result[f"{number}/kernel"] = (conv.side, conv.side, 1 if conv.depthwise else conv.inside, conv.outside)
        result[f"{number}/bias"] = (conv.outside,)
    return result


def folded(state: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    """Converts PyTorch's state dict to HWIO kernels and biases with folded batch norms.

    Raises UserError for another network's.
    """
    arrays: dict[str, np.ndarray] = {}
    try:
        for number, conv in enumerate(CONVS):
            norm = {leaf: state[f"{conv.norm}.{leaf}"] for leaf in ("weight", "bias", "running_mean", "running_var")}
            factor = norm["weight"] / np.sqrt(norm["running_var"] + _EPSILON)
            arrays[f"{number}/kernel"] = state[f"{conv.weight}.weight"].transpose(2, 3, 1, 0) * factor
            arrays[f"{number}/bias"] = norm["bias"] - norm["running_mean"] * factor
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} isn't MobileNetV2 ({error}): give the published file") from error
    return arrays


def embed(weights: Mapping[str, Any], frames: jax.Array) -> jax.Array:
    """(N, 224, 224, 3) RGB in [0, 1] to (N, 1280): the spatial mean of the last features."""
    x = kept = (frames - jnp.array(_MEAN)) / jnp.array(_STD)
    for number, conv in enumerate(CONVS):
        kept = x if conv.begins else kept
        x = jax.lax.conv_general_dilated(
            x,
            weights[f"{number}/kernel"],
            (conv.stride, conv.stride),
            [(conv.side // 2, conv.side // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=conv.inside if conv.depthwise else 1,
        )
        x = x + weights[f"{number}/bias"]
        x = jnp.clip(x, 0, 6) if conv.bent else x
        x = x + kept if conv.adds else x
    return x.mean((1, 2))


_compiled = jax.jit(embed)


class MobileNet:
    """`embed`: the frame, resized bilinearly to 224 x 224, as a unit vector. It is always found."""

    name = "mobilenetv2"
    subject: Subject = "body"
    licence = NETWORKS["mobilenetv2"].licence

    def __init__(self, cache: Path | None = None) -> None:
        self._weights = jax.device_put(find_arrays(self.name, read_mobilenet, shapes(), cache))

    def embed(self, frames: np.ndarray) -> Embedded:
        sides = (SIZE, SIZE)
        resized = (
            np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize(sides, Image.Resampling.BILINEAR))
            for frame in frames
        )
        found = [
            np.asarray(_compiled(self._weights, filled.astype(np.float32) / 255))[:count]
            for filled, count in padded_batches(resized, BATCH)
        ]
        vectors = np.concatenate(found)
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        return Embedded(vectors / np.maximum(lengths, 1e-12), np.ones(len(vectors), bool))


def read_mobilenet(path: Path) -> Arrays:
    """PyTorch's state dict with each batch norm folded into the preceding convolution."""
    from maskanim_jax.serialization.torch_reader import read_tensors

    return folded(read_tensors(path, max_bytes=64 << 20), path)
