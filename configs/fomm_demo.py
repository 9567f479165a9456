"""FOMM's version of `configs/demo.py`: puppets, for at most ten minutes on two cores."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import demo, fomm_base, fomm_puppets


def get_config(variant: str = "full") -> ConfigDict:
    """The fomm_puppets config, shortened."""
    c = demo.demo_run(fomm_puppets.get_config())
    c.name = "fomm-demo"
    return fomm_base.apply_variant(c, variant)
