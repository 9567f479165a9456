"""FOMM's formula weights, from the names and shapes of the released vox-adv checkpoint, for the tests that compare with it."""

from functools import cache, partial

from parity import FOLDER, frames, needed, recorded, stored, vgg

from configs import fomm_voxceleb_adv
from maskanim_jax.conversion.fomm import to_variables

__all__ = ["config", "formula_tensors", "frames", "keys", "needed", "stored", "variables", "vgg"]
keys = cache(partial(recorded.keys, FOLDER, "fomm"))


def formula_tensors():
    """All tensors by full name; the fixed blurs and the counters are left out."""
    return recorded.tensors(keys(), tuple(keys()))


def config(align_corners: bool = False):
    """The released vox-adv settings, which all stored numbers follow; `align_corners`: corner-aligned sampling."""
    c = fomm_voxceleb_adv.get_config()
    c.align_corners = align_corners
    return c


def variables():
    """Our variables from the formula."""
    return to_variables(formula_tensors(), config())
