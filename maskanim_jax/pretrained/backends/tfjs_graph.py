"""How is a TensorFlow.js graph model run?

Nodes are evaluated as JAX operations, starting from the output's inputs. Only MoveNet's operations
are supported. Integers (shapes, axes, indices) stay NumPy arrays unless they depend on a traced
value, so the graph can be jitted with the float weights as arguments.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from maskanim_jax.errors import UserError, check_size

_MAX_BYTES = 256 << 20
_NUMBERS = {"DT_FLOAT": np.float32, "DT_INT32": np.int32}
_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "Relu": jax.nn.relu,
    "Relu6": lambda x: jnp.clip(x, 0, 6),
}

Values = list[Any]


class Graph:
    """A graph with one input and one output.

    `weights`: name to float32 array; `__call__` is pure.
    """

    def __init__(self, path: Path, data: Path) -> None:
        """Reads the JSON and the binary beside it.

        Raises UserError for a damaged file or an unsupported operation.
        """
        try:
            check_size(path, _MAX_BYTES)
            check_size(data, _MAX_BYTES)
            content = json.loads(path.read_text(encoding="utf-8"))
            self._nodes = {node["name"]: node for node in content["modelTopology"]["node"]}
            ((_, given),) = content["signature"]["inputs"].items()
            ((_, wanted),) = content["signature"]["outputs"].items()
            self._input, self._output = (each["name"].split(":")[0] for each in (given, wanted))
            arrays = _arrays(content["weightsManifest"], data.read_bytes())
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(f"{path} isn't a complete TensorFlow.js model ({error}): install it again") from error
        if unknown := {node["op"] for node in self._nodes.values()} - {*_OPERATIONS, "Const", "Placeholder"}:
            raise UserError(f"{path} has unsupported operations: {', '.join(sorted(unknown))}")
        self.weights = {name: array for name, array in arrays.items() if array.dtype == np.float32}
        self._constants = {name: array for name, array in arrays.items() if array.dtype != np.float32}

    def __call__(self, weights: Mapping[str, Any], given: Any) -> Any:
        """The output for an input of the graph's shape and type."""
        values: dict[str, Values] = {name: [value] for name, value in {**self._constants, **weights}.items()}
        values[self._input] = [given]
        todo = [self._output]
        while todo:  # depth first, without recursion, since graphs are deeper than Python's stack
            node = self._nodes[todo[-1]]
            sources = [_source(name) for name in node.get("input", ()) if not name.startswith("^")]
            if missing := [name for name, _ in sources if name not in values]:
                todo.extend(missing)
                continue
            name = todo.pop()
            if name not in values:
                result = _OPERATIONS[node["op"]](node.get("attr", {}), *[values[each][slot] for each, slot in sources])
                values[name] = result if isinstance(result, list) else [result]
        return values[self._output][0]


def _source(name: str) -> tuple[str, int]:
    """ "node:1" is the node's second output."""
    node, _, slot = name.partition(":")
    return node, int(slot or 0)


def _arrays(manifest: list[dict[str, Any]], data: bytes) -> dict[str, np.ndarray]:
    """The weights are stored consecutively; float32 ones may be stored as float16."""
    found, at = {}, 0
    for weight in (each for group in manifest for each in group["weights"]):
        stored = weight.get("quantization", {}).get("dtype", weight["dtype"])
        kind = np.dtype({"float16": "<f2", "float32": "<f4", "int32": "<i4"}[stored])
        count = int(np.prod(weight["shape"], dtype=np.int64))
        array = np.frombuffer(data, kind, count, at).reshape(weight["shape"])
        found[weight["name"]] = array.astype(np.int32 if weight["dtype"] == "int32" else np.float32)
        at += count * kind.itemsize
    if at != len(data):
        raise ValueError(f"its weights have {len(data)} bytes instead of {at}")
    return found


def _text(value: str) -> str:
    return base64.b64decode(value).decode("ascii")


def _window(attributes: dict[str, Any]) -> tuple[tuple[int, int], str]:
    """Strides and padding of a convolution; other attributes must have the supported values."""
    numbers = {key: [int(i) for i in attributes[key]["list"]["i"]] for key in ("strides", "dilations")}
    if numbers["dilations"] != [1, 1, 1, 1] or _text(attributes["data_format"]["s"]) != "NHWC":
        raise UserError("a convolution of the graph is dilated or not in NHWC order, which is not supported")
    return (numbers["strides"][1], numbers["strides"][2]), _text(attributes["padding"]["s"])


def _conv(attributes: dict[str, Any], x: jax.Array, kernel: jax.Array, *bias: jax.Array) -> jax.Array:
    strides, padding = _window(attributes)
    y = jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return _fused(attributes, y, *bias)


def _depthwise(attributes: dict[str, Any], x: jax.Array, kernel: jax.Array, *bias: jax.Array) -> jax.Array:
    strides, padding = _window(attributes)
    height, width, channels, times = kernel.shape
    y = jax.lax.conv_general_dilated(
        x,
        kernel.reshape(height, width, 1, channels * times),
        strides,
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=channels,
    )
    return _fused(attributes, y, *bias)


def _fused(attributes: dict[str, Any], x: jax.Array, *given: jax.Array) -> jax.Array:
    """The bias and activation that the graph has fused into a convolution."""
    for name in (_text(each) for each in attributes.get("fused_ops", {}).get("list", {}).get("s", ())):
        if name == "BiasAdd":
            x = x + given[0]
        elif name in _ACTIVATIONS:
            x = _ACTIVATIONS[name](x)
        else:
            raise UserError(f"a convolution of the graph is followed by {name}, which is not supported")
    return x


def _resize(attributes: dict[str, Any], x: jax.Array, size: np.ndarray) -> jax.Array:
    if not attributes.get("half_pixel_centers", {}).get("b") or attributes.get("align_corners", {}).get("b"):
        raise UserError("a resize of the graph does not use half-pixel centres, which is not supported")
    height, width = (int(side) for side in size)
    return jax.image.resize(x, (x.shape[0], height, width, x.shape[3]), "linear", antialias=False)


def _unpack(attributes: dict[str, Any], x: jax.Array) -> Values:
    axis = int(attributes.get("axis", {}).get("i", 0))
    return [jnp.squeeze(part, axis) for part in jnp.split(x, x.shape[axis], axis)]


def _squeeze(attributes: dict[str, Any], x: jax.Array) -> jax.Array:
    return jnp.squeeze(x, tuple(int(i) for i in attributes["squeeze_dims"]["list"]["i"]))


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "Identity": lambda _, x: x,
    "Cast": lambda attributes, x: x.astype(_NUMBERS[attributes["DstT"]["type"]]),
    "AddV2": lambda _, x, y: x + y,
    "Sub": lambda _, x, y: x - y,
    "Mul": lambda _, x, y: x * y,
    "RealDiv": lambda _, x, y: x / y,
    "FloorDiv": lambda _, x, y: x // y,
    "SquaredDifference": lambda _, x, y: (x - y) ** 2,
    "Sqrt": lambda _, x: jnp.sqrt(x),
    "Sigmoid": lambda _, x: jax.nn.sigmoid(x),
    "ArgMax": lambda _, x, axis: jnp.argmax(x, int(axis)).astype(jnp.int32),
    "ExpandDims": lambda _, x, axis: jnp.expand_dims(x, int(axis)),
    "Reshape": lambda _, x, shape: jnp.reshape(x, tuple(int(side) for side in shape)),
    "Squeeze": _squeeze,
    "Unpack": _unpack,
    "Pack": lambda attributes, *parts: jnp.stack(parts, int(attributes.get("axis", {}).get("i", 0))),
    "ConcatV2": lambda _, *parts: jnp.concatenate(parts[:-1], int(parts[-1])),
    "GatherNd": lambda _, x, places: x[tuple(jnp.moveaxis(places, -1, 0))],
    "ResizeBilinear": _resize,
    "_FusedConv2D": _conv,
    "FusedDepthwiseConv2dNative": _depthwise,
    "DepthwiseConv2dNative": _depthwise,
}
