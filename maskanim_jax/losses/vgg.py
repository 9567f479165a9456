"""How are VGG-19's features computed for the perceptual loss (Simonyan and
Zisserman 2014, configuration E)?

Weights come as one flat dict of arrays, `convB_I/kernel` (3, 3, in, out) and `convB_I/bias`, with
`mean` and `std` (3,) of RGB in [0, 1]; `maskanim_jax.weights` creates it. Pass them to jitted
functions as an ARGUMENT: if they were closed over, XLA would fold constants for minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp

from maskanim_jax.errors import UserError
from maskanim_jax.nn.kernels.convolution import conv2d
from maskanim_jax.nn.kernels.pooling import max_pool
from maskanim_jax.nn.types import DType

Array = TypeVar("Array")

CONVS = (2, 2, 4, 4, 4)
"""The number of convs in each block; blocks are separated by a 2x2 max pool."""

LAYERS = tuple(f"relu{block + 1}_{i + 1}" for block, count in enumerate(CONVS) for i in range(count))
"""Names of all ReLU layers in order: relu1_1 ... relu5_4."""


def check_layers(layers: Sequence[str]) -> None:
    """Raises UserError when a name is not a ReLU layer of VGG-19."""
    unknown = [layer for layer in layers if layer not in LAYERS]
    if unknown or not layers:
        raise UserError(
            f"config.loss.vgg_layers has {unknown or 'no layer'}; the ReLU layers of VGG-19 are {LAYERS[0]} to {LAYERS[-1]}"
        )


def features(
    weights: Mapping[str, jax.Array], frames: jax.Array, layers: Sequence[str], dtype: DType = jnp.float32
) -> list[jax.Array]:
    """Activations N_j of Eq. 9 at the named ReLU layers, for (N, H, W, 3) RGB in [0, 1]; deeper
    layers are not computed.
    """
    x = ((frames - weights["mean"]) / weights["std"]).astype(dtype)
    found: dict[str, jax.Array] = {}
    for block, count in enumerate(CONVS):
        if block:
            x = max_pool(x)
        for i in range(count):
            name = f"{block + 1}_{i + 1}"
            kernel, bias = weights[f"conv{name}/kernel"].astype(dtype), weights[f"conv{name}/bias"].astype(dtype)
            x = conv2d(x, jax.lax.stop_gradient(kernel))
            x = jax.nn.relu(x + bias)
            if f"relu{name}" in layers:
                found[f"relu{name}"] = x
            if len(found) == len(set(layers)):
                return [found[layer] for layer in layers]
    return [found[layer] for layer in layers]


def used_names(layers: Sequence[str]) -> set[str]:
    """Names of the weights that the layers need."""
    last = max(LAYERS.index(layer) for layer in layers)
    convs = (layer.replace("relu", "conv") for layer in LAYERS[: last + 1])
    return {"mean", "std", *(f"{conv}/{part}" for conv in convs for part in ("kernel", "bias"))}


def used_weights(weights: Mapping[str, Array], layers: Sequence[str]) -> dict[str, Array]:
    """Only the weights that the layers need, so that less is moved to the device."""
    names = used_names(layers)
    return {key: value for key, value in weights.items() if key in names}
