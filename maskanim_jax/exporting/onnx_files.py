"""What does an export for ONNX contain? The two functions as models that include the weights.

The converter is jax2onnx. Its inputs are plain operations on arrays with fixed
shapes, see `one_platform`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from maskanim_jax.errors import UserError
from maskanim_jax.exporting.functions import Functions, frames_of
from maskanim_jax.exporting.one_platform import for_platform

AS_ON = "cpu"
"""The platform whose operations are exported, where they differ by platform."""


def check_ready() -> None:
    """Raises UserError if the converter or the runtime for its files is not installed."""
    for package in ("jax2onnx", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"--format=onnx needs the package {package}: pip install 'maskanim_jax[onnx]'")


def write_onnx(folder: Path, made: Functions, size: int, batch: int) -> dict[str, Any]:
    """Writes begin.onnx and animate.onnx; returns their metadata.

    Raises UserError if something cannot be converted.
    """
    one, names = frames_of(size, 1), list(made.source_state)

    def begin(source: Any, first: Any) -> Any:
        return made.begin(made.weights, source, first)

    def animate(driving: Any, *source_state: Any) -> Any:
        return made.animate(made.weights, dict(zip(names, source_state, strict=True)), driving)

    frames = frames_of(size, batch)
    outputs = sorted(jax.eval_shape(animate, frames, *made.source_state.values()))  # a dict's leaves are sorted by name
    _convert(folder / "begin.onnx", begin, {"source": one, "first": one}, sorted(names))
    _convert(folder / "animate.onnx", animate, {"driving": frames, **made.source_state}, outputs)
    return {"batch": batch, "converter": f"jax2onnx {importlib.metadata.version('jax2onnx')}"}


def _distinct(outputs: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """The outputs, each as its own value: in ONNX, a value that is passed on unchanged
    cannot have a second name.
    """
    seen, found = {id(each) for each in inputs}, []
    for each in outputs:
        if id(each) in seen:
            axis = max(range(each.ndim), key=lambda place: each.shape[place])
            parts = [
                jax.lax.slice_in_dim(each, start, end, axis=axis) for start, end in ((0, 1), (1, each.shape[axis]))
            ]
            each = jax.lax.concatenate(parts, axis)
        seen.add(id(each))
        found.append(each)
    return tuple(found)


def _convert(path: Path, function: Callable[..., Any], inputs: dict[str, Any], outputs: Sequence[str]) -> None:
    plain = for_platform(function, AS_ON, *inputs.values())
    # An array that is both input and output, such as the source, would have two names.
    names = [f"{name}_out" if name in inputs else name for name in outputs]
    from jax2onnx import to_onnx

    try:
        to_onnx(
            lambda *arrays: _distinct(plain(*arrays), arrays),
            list(inputs.values()),
            model_name=path.stem,
            input_names=list(inputs),
            output_names=names,
            return_mode="file",
            output_path=str(path),
        )
    except NotImplementedError as error:
        raise UserError(
            f"jax2onnx cannot convert {path.stem} ({error}): use --format=jax for this system and options"
        ) from error
