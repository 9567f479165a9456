"""Formula weights and stored numbers of the released implementation, for the tests that compare with it."""

import json
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from configs import taichi
from maskanim_jax.conversion.perturbed_masks import to_variables

FOLDER = Path(__file__).parents[3] / "shared" / "parity"
needed = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the released implementation's numbers (../shared/parity) are not here"
)
SMALL_GAIN = {"ref", "final", "final_hourglass", "kp", "jacobian", "mask", "occlusion"}


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor that both sides rebuild from its name and shape."""
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


@cache
def keys() -> dict:
    """Names and shapes of everything that a checkpoint of the released code holds."""
    return json.loads((FOLDER / "pm_keys.json").read_text())


def formula_tensors() -> dict[str, np.ndarray]:
    """All tensors by full name; the fixed blur and the counters are left out."""
    return {
        f"{top}.{name}": fill(f"{top}.{name}", tuple(shape))
        for top in ("generator", "mask_generator")
        for name, shape in keys()[top].items()
        if not name.endswith(("num_batches_tracked", "down.weight"))
    }


def config():
    """The released taichi settings, which all stored numbers follow."""
    return taichi.get_config("released")


def variables():
    """Our variables from the formula."""
    return to_variables(formula_tensors(), config())


def vgg() -> dict[str, np.ndarray]:
    """VGG-19 from the formula, in our layout, with torchvision's normalisation."""
    convs = iter(["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "3_4", "4_1", "4_2", "4_3", "4_4", "5_1"])
    found = {"mean": np.float32([0.485, 0.456, 0.406]), "std": np.float32([0.229, 0.224, 0.225])}
    for name, shape in keys()["vgg19"].items():
        value = fill(f"vgg19.{name}", tuple(shape))
        if name.endswith("weight"):
            conv = next(convs)
            found[f"conv{conv}/kernel"] = value.transpose(2, 3, 1, 0)
        else:
            found[f"conv{conv}/bias"] = value
    return found


def frames() -> tuple[np.ndarray, np.ndarray]:
    """(source, driving), each (2, 256, 256, 3) float32 in [0, 1]."""
    stored = np.load(FOLDER / "frames.npz")
    return tuple(np.stack([stored[f"{kind}0"], stored[f"{kind}1"]]).astype(np.float32) / 255 for kind in "sd")


def stored(name: str) -> dict[str, np.ndarray]:
    """The arrays of one file."""
    return dict(np.load(FOLDER / f"{name}.npz"))
