"""FOMM on Fashion-Videos at 256 x 256, as released: adversarial."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base


def get_config(variant: str = "full") -> ConfigDict:
    """The shards are prepared with

    python -m input_pipeline.prepare --input=fashion --output=data/fashion256 --size=256
    """
    c = fomm_base.adversarial(fomm_base.get_config())
    c.name = "fomm-fashion"
    c.data.shards = "data/fashion256"
    c.data.num_repeats = 50  # per clip: a clip without '#' in its name is its own identity
    c.batch_size = 27
    return fomm_base.apply_variant(c, variant)
