"""FOMM on Tai-Chi-HD at 256 x 256, as released; `configs/fomm_taichi.py:baseline` etc.
are the paper's ablations.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base


def get_config(variant: str = "full") -> ConfigDict:
    """The shards are prepared with

    python -m input_pipeline.prepare --input=taichi --output=data/taichi256 --size=256
    """
    c = fomm_base.get_config()
    c.name = "fomm-taichi"
    c.data.shards = "data/taichi256"
    c.data.num_repeats = 150
    c.batch_size = 30
    return fomm_base.apply_variant(c, variant)
