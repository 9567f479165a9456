"""Perturbed Masks with the formula's weights, and stored numbers of the released implementation, for the tests that compare with it."""

import sys
from functools import cache, partial
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import recorded
from benchmarks.recorded import FOLDER, fill
from configs import taichi
from maskanim_jax.conversion.perturbed_masks import to_variables

__all__ = ["FOLDER", "config", "fill", "formula_tensors", "frames", "keys", "needed", "stored", "variables", "vgg"]
needed = pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the released implementation's numbers (../shared/parity) are not here"
)
keys = cache(partial(recorded.keys, FOLDER, "pm"))
vgg = partial(recorded.vgg, FOLDER)
frames = partial(recorded.frames, FOLDER)
stored = partial(recorded.arrays, FOLDER)


def formula_tensors():
    """All tensors by full name; the fixed blur and the counters are left out."""
    return recorded.tensors(keys(), ("generator", "mask_generator"))


def config():
    """The released taichi settings, which all stored numbers follow."""
    return taichi.get_config("released")


def variables():
    """Our variables from the formula."""
    return to_variables(formula_tensors(), config())
