"""Which numbers did the released implementations produce, and from which weights?

Both sides compute their weights from a tensor's name and shape, so only inputs and outputs are
stored, in a folder with `frames.npz`,
`{pm,fomm}_keys.json`, `{pm,fomm}_eval.npz` and `{pm,fomm}_train.json`. Tests and benchmarks use
this module; it needs only NumPy.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parents[2] / "shared" / "parity"
"""The default folder of the recorded numbers."""
SMALL_GAIN = {"ref", "final", "final_hourglass", "kp", "jacobian", "mask", "occlusion"}
"""Layers before a sigmoid or softmax; they have smaller weights."""
VGG_CONVS = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "3_4", "4_1", "4_2", "4_3", "4_4", "5_1"]


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 tensor that both sides build from its full name and shape
    (convolutions: O, I, H, W).
    """
    owner, leaf = key.split(".")[-2:]
    n = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape).astype(np.float32)
    if leaf == "running_mean":
        return 0.1 * n
    if leaf == "running_var":
        return 1 + 0.2 * np.abs(n)
    if leaf == "bias":
        return 0.05 * n
    if len(shape) == 4:
        return ((0.3 if owner in SMALL_GAIN else 1.4) / np.sqrt(np.prod(shape[1:])) * n).astype(np.float32)
    return 1 + 0.1 * n


def keys(folder: Path, system: str) -> dict[str, dict[str, list[int]]]:
    """Names and shapes of all tensors in a released checkpoint of "pm" or "fomm", by
    the file's top-level keys.
    """
    return json.loads((folder / f"{system}_keys.json").read_text())


def tensors(shapes: Mapping[str, Mapping[str, Any]], modules: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The tensors of these modules by full name, without fixed blurs and counters."""
    found = {
        f"{module}.{name}": fill(f"{module}.{name}", tuple(shape))
        for module in modules
        for name, shape in shapes[module].items()
        if not name.endswith(("num_batches_tracked", "down.weight"))
    }
    if "kp_detector" in modules:
        found["kp_detector.kp.weight"] *= 3
        found["kp_detector.jacobian.bias"] += np.tile(np.float32([1, 0, 0, 1]), 10)
    return found


def vgg(folder: Path) -> dict[str, np.ndarray]:
    """VGG-19 with weights from the formula, in this project's layout, with
    torchvision's normalisation.
    """
    found = {"mean": np.float32([0.485, 0.456, 0.406]), "std": np.float32([0.229, 0.224, 0.225])}
    convs = iter(VGG_CONVS)
    for name, shape in keys(folder, "pm")["vgg19"].items():
        value = fill(f"vgg19.{name}", tuple(shape))
        if name.endswith("weight"):
            conv = next(convs)
            found[f"conv{conv}/kernel"] = value.transpose(2, 3, 1, 0)
        else:
            found[f"conv{conv}/bias"] = value
    return found


def frames(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(source, driving), each (2, 256, 256, 3) float32 in [0, 1]."""
    stored = arrays(folder, "frames")
    source, driving = (np.stack([stored[f"{kind}0"], stored[f"{kind}1"]]).astype(np.float32) / 255 for kind in "sd")
    return source, driving


def arrays(folder: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of one file, without its `.npz`."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as stored:
        return dict(stored)


def scalars(folder: Path, name: str) -> dict[str, Any]:
    """The content of one file, without its `.json`."""
    return json.loads((folder / f"{name}.json").read_text())
