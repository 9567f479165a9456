"""FOMM's formula weights, from the names and shapes of the released vox-adv checkpoint, for the tests that compare with it."""

import json
from functools import cache

import numpy as np
from parity import FOLDER, fill, frames, needed, stored, vgg

from configs import fomm_voxceleb_adv
from maskanim_jax.conversion.fomm import to_variables

__all__ = ["config", "formula_tensors", "frames", "keys", "needed", "stored", "variables", "vgg"]


@cache
def keys() -> dict:
    """Names and shapes of everything that a released checkpoint holds."""
    return json.loads((FOLDER / "fomm_keys.json").read_text())


def formula_tensors() -> dict[str, np.ndarray]:
    """All tensors by full name; the fixed blurs and the counters are left out."""
    tensors = {
        f"{top}.{name}": fill(f"{top}.{name}", tuple(shape))
        for top, shapes in keys().items()
        for name, shape in shapes.items()
        if not name.endswith(("num_batches_tracked", "down.weight"))
    }
    tensors["kp_detector.kp.weight"] *= 3
    tensors["kp_detector.jacobian.bias"] += np.tile(np.float32([1, 0, 0, 1]), 10)
    return tensors


def config(align_corners: bool = False):
    """The released vox-adv settings, which all stored numbers follow; `align_corners`: corner-aligned sampling."""
    c = fomm_voxceleb_adv.get_config()
    c.align_corners = align_corners
    return c


def variables():
    """Our variables from the formula."""
    return to_variables(formula_tensors(), config())
