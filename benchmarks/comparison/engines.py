"""How do OpenVINO and ONNX Runtime run this project's ONNX export? In float32, on all cores."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from benchmarks.comparison.start import threads

Arrays = dict[str, np.ndarray]
Model = Callable[[Arrays], Arrays]
"""Runs the model: inputs by name to outputs by name."""


def openvino(path: Path) -> Model:
    """A model in OpenVINO, forced to float32: on some processors its default is bfloat16."""
    import openvino

    core = openvino.Core()
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(str(path), "CPU", settings)
    request = compiled.create_infer_request()
    names = [output.any_name for output in compiled.outputs]

    def run(inputs: Arrays) -> Arrays:
        found = request.infer(inputs)
        return {name: found[index] for index, name in enumerate(names)}

    return run


def onnxruntime(path: Path) -> Model:
    """A model in ONNX Runtime with all its optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


ENGINES: Mapping[str, Callable[[Path], Model]] = {"OpenVINO": openvino, "ONNX Runtime": onnxruntime}


class EngineSide:
    """Animates with `FOLDER/onnx-BATCH`; a model is loaded when its batch size is first used."""

    def __init__(self, engine: str, folder: Path) -> None:
        self.read, self.folder = ENGINES[engine], folder
        self.models: dict[int, tuple[Model, Model]] = {}

    def animate(self, source: np.ndarray, video: np.ndarray, way: str) -> tuple[float, np.ndarray]:
        """(seconds per frame, frames) for a video of uint8 frames, in batches of
        `way`; the last one is padded.
        """
        batch = int(way)
        if batch not in self.models:
            there = self.folder / f"onnx-{batch}"
            self.models[batch] = self.read(there / "begin.onnx"), self.read(there / "animate.onnx")
        begin, animate = self.models[batch]
        began, found = time.perf_counter(), []
        first = _unit(video[:1])
        source_state = {
            name.removesuffix("_out"): value.copy()
            for name, value in begin({"source": _unit(source[None]), "first": first}).items()
        }
        for start in range(0, len(video), batch):
            driving = _unit(video[start : start + batch])
            filled = np.concatenate([driving, *[driving[-1:]] * (batch - len(driving))])
            (frames,) = animate({"driving": filled, **source_state}).values()
            found.append(np.array(frames[: len(driving)]))
        return (time.perf_counter() - began) / len(video), np.concatenate(found)


def _unit(frames: np.ndarray) -> np.ndarray:
    return frames.astype(np.float32) / 255


def installed(engine: str) -> bool:
    """Whether an engine can be measured."""
    import importlib.util

    return importlib.util.find_spec(engine.lower().replace(" ", "")) is not None
