"""FOMM's version of `configs/demo.py`: it fine-tunes the bundled checkpoint on new
puppets at 128 x 128; `:scratch` starts from nothing, at 64 x 64, and so do the ablations.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import demo, fomm_base, fomm_puppets

BUNDLED = "puppets-fomm"


def get_config(variant: str = BUNDLED) -> ConfigDict:
    """The fomm_puppets config, shortened."""
    c = demo.demo_run(fomm_puppets.get_config("128" if variant == BUNDLED else "full"))
    c.name = "fomm-demo"
    if variant == BUNDLED:
        demo.fine_tuned(c, BUNDLED)
        c.optim.learning_rate = 5e-5  # of the long run's rate the same share as in configs/demo.py
        return c
    return fomm_base.apply_variant(c, "full" if variant == "scratch" else variant, BUNDLED, "scratch")
