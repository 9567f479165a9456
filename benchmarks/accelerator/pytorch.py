"""How fast is the released layout in PyTorch on the same device?

The networks of `benchmarks.pytorch` run eagerly, with fused Adam and the device's TF32; in bfloat16
under autocast. Frames stay on the device, as in the JAX benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks import pytorch as networks
from benchmarks.accelerator.speed import DRAWN, timed
from benchmarks.accelerator.workload import features_of, pairs, repeated
from benchmarks.pytorch.perceptual import Perceptual

Row = dict[str, Any]


def available() -> str | None:
    """PyTorch's accelerator; None if it has only the CPU."""
    return "cuda" if torch.cuda.is_available() else None


def pytorch(
    configs: Callable[[], Any], train_batches: list[int], animate_batches: list[int], device: str, seconds: float
) -> Iterator[Row]:
    """A row per batch size of a training step, then per batch size of animation; stops at the
    first that does not fit.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    config = configs()
    row = {"by": "PyTorch", "system": config.system, "precision": config.precision, "size": config.frame_size}
    for task, batches in (("step", train_batches), ("animation", animate_batches)):
        for batch in sorted(batches):
            try:
                spent = _step(config, batch, device, seconds) if task == "step" else _animation(config, batch, device)
            except torch.OutOfMemoryError:
                yield row | {"batch": batch, "note": f"{task} does not fit into the device's memory"}
                break
            memory = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None
            rate = {"steps_per_s": 1 / spent} if task == "step" else {"frames_per_s": batch / spent}
            yield row | {"batch": batch, "peak_memory_mib": memory, **rate}


def _model(config: Any, device: str) -> Any:
    """Freshly initialised networks in float32: the model refuses bfloat16, so
    autocast converts instead.
    """
    plain = config.copy_and_resolve_references()
    plain.precision = "float32"
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    return networks.model(plain).to(device).to(memory_format=torch.channels_last)


def _frames(frames: np.ndarray, device: str) -> torch.Tensor:
    wide = torch.from_numpy(np.array(frames)).to(device).permute(0, 3, 1, 2).float() / 255
    return wide.contiguous(memory_format=torch.channels_last)


def _autocast(config: Any, device: str) -> Any:
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bfloat16")


class _Done:
    """Passed to `timed`, which waits for it."""

    def __init__(self, device: str) -> None:
        self.device = device

    def block_until_ready(self) -> _Done:
        """Waits until the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return self


def _step(config: Any, batch: int, device: str, seconds: float) -> float:
    model = _model(config, device).train()
    perceptual = Perceptual(features_of(config)[0], config).to(device)
    optimizer = model.optimizer()
    source, driving = (_frames(repeated(each, batch), device) for each in pairs(DRAWN, config.frame_size, 1))

    def run(count: int) -> _Done:
        for _ in range(count):
            optimizer.zero_grad(set_to_none=True)
            with _autocast(config, device):
                losses = model.losses(perceptual, source, driving, driving)
            torch.stack([value.float() for value in losses.values()]).sum().backward()
            optimizer.step()
        return _Done(device)

    return timed(run, seconds)[0]


@torch.inference_mode()
def _animation(config: Any, batch: int, device: str, seconds: float = 2.0) -> float:
    model = _model(config, device).eval()
    source, driving = (_frames(repeated(each, batch), device) for each in pairs(DRAWN, config.frame_size, 1))
    with _autocast(config, device):
        source_state = model.begin(source[:1], driving[:1])

    def run(count: int) -> _Done:
        for _ in range(count):
            with _autocast(config, device):
                model.frames(source_state, driving)
        return _Done(device)

    return timed(run, seconds)[0]
