"""FOMM's `configs/demo.py`: puppets, at most ten minutes on two cores. Shows the whole path, not the best result."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import demo, fomm_base, fomm_puppets


def get_config(variant: str = "full") -> ConfigDict:
    """The fomm_puppets config, shorter."""
    c = demo.run(fomm_puppets.get_config())
    c.name = "fomm-demo"
    return fomm_base.vary(c, variant)
