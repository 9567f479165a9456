"""FOMM on the embedded data set of drawn figures at 64 x 64: the data, pairs, steps and batch of `configs/puppets.py`."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base, puppets


def get_config(variant: str = "full") -> ConfigDict:
    """Held-out identities are never seen in training."""
    c = puppets.run(fomm_base.reduced(fomm_base.get_config()))
    c.name = "fomm-puppets"
    return fomm_base.vary(c, variant)
