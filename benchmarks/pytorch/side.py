"""What does a worker of the comparison do in PyTorch?

Times are wall-clock seconds, starting from uint8 frames.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from benchmarks import pytorch
from benchmarks.comparison.start import threads
from benchmarks.pytorch.perceptual import Perceptual


def load(path: Path, config: ConfigDict) -> Any:
    """A model with the weights of a file in the released format; unused tensors are not loaded."""
    tree = torch.load(path, weights_only=True)
    with torch.device("meta"):  # the file's tensors become the parameters, so there is no second copy
        model = pytorch.model(config)
    for name in model.MODULES:
        state = tree[name].items()
        if model.ENCODED:
            state = [(key, value) for key, value in state if not key.startswith(model.ENCODED)]
        getattr(model, name).load_state_dict(dict(state), assign=True)
    return model


class TorchSide:
    """Runs the networks of a file on all cores, eagerly or with a step
    compiled by `torch.compile`.
    """

    def __init__(
        self, config: ConfigDict, weights: Path, vgg: Mapping[str, np.ndarray], task: str, compiled: bool = False
    ) -> None:
        torch.set_num_threads(threads())
        self.model = load(weights, config)
        self.perceptual = Perceptual(vgg, config) if task == "step" else None
        self.losses: Any = torch.compile(self.model.losses) if compiled else self.model.losses
        self.layout(False)

    def layout(self, last: bool) -> None:
        """Sets the layout of weights and frames (channels last or not), and
        creates Adam's moments anew.
        """
        self.format = torch.channels_last if last else torch.contiguous_format
        modules: list[Any] = [self.model, self.perceptual] if self.perceptual else [self.model]
        for module in modules:
            module.to(memory_format=self.format)
        self.optimizer = self.model.optimizer()

    def frames(self, frames: np.ndarray) -> Tensor:
        """(N, S, S, 3) uint8 to the networks' frames."""
        wide = torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2).float() / 255
        return wide.contiguous(memory_format=self.format)

    def compare(
        self, source: np.ndarray, driving: np.ndarray, numbers: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, float]]:
        """Losses and gradient norms of one batch; only running statistics are updated.

        `numbers` replace the random values: "perturbed" (N, L, L, 1) is r's input, "theta" and
        "params" are FOMM's warp.
        """
        s, d = self.frames(source), self.frames(driving)
        assert self.perceptual is not None
        tensors = {name: torch.from_numpy(np.array(value)) for name, value in numbers.items()}
        if "perturbed" in tensors:
            tensors["perturbed"] = tensors["perturbed"].permute(0, 3, 1, 2)
        losses = self.model.train().losses(self.perceptual, s, d, d, **self.model.given(tensors))
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        norms = {}
        for name in self.model.NETWORKS:
            squares = [float(p.grad.double().square().sum()) for p in self.model.network(name) if p.grad is not None]
            norms[name] = sum(squares) ** 0.5
        return {"losses": {name: value.item() for name, value in losses.items()}, "norms": norms}

    def step(self, source: np.ndarray, driving: np.ndarray, count: int) -> float:
        """Seconds for one of `count` training steps."""
        assert self.perceptual is not None
        self.model.train()
        began = time.perf_counter()
        for _ in range(count):
            s, d = self.frames(source), self.frames(driving)
            self.optimizer.zero_grad(set_to_none=True)
            losses = self.losses(self.perceptual, s, d, d)
            torch.stack(list(losses.values())).sum().backward()
            self.optimizer.step()
            if not all(np.isfinite(value.item()) for value in losses.values()):
                raise FloatingPointError("a loss is not finite")
        return (time.perf_counter() - began) / count

    @torch.inference_mode()
    def animate(self, source: np.ndarray, video: np.ndarray, way: str) -> tuple[float, np.ndarray]:
        """(seconds per frame, frames): frame by frame if `way` is "released",
        otherwise in batches of `way`.
        """
        self.model.eval()
        began, found, source_state = time.perf_counter(), [], None
        size = 1 if way == "released" else int(way)
        for first in range(0, len(video), size):
            driving = self.frames(video[first : first + size])
            if source_state is None or (way == "released" and self.model.SOURCE_EACH_FRAME):
                source_state = self.model.begin(self.frames(source[None]), self.frames(video[:1]))
            found.append(self.model.frames(source_state, driving).permute(0, 2, 3, 1).numpy())
        return (time.perf_counter() - began) / len(video), np.concatenate(found)
