"""FOMM on VoxCeleb: `configs/fomm_voxceleb.py` as released at 256 x 256,
`:small` at 64 x 64 for a CPU.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base, voxceleb


def get_config(variant: str = "full") -> ConfigDict:
    """The shards are prepared with

        python -m input_pipeline.prepare --input=vox --output=data/voxceleb256 --size=256

    For `:small`, use faces64 and --size=64.
    """
    c = fomm_base.get_config()
    if variant == "small":  # data, pairs, steps and batch size of configs/voxceleb.py:small
        voxceleb.small_run(fomm_base.from_puppets(fomm_base.small(c)))
        c.name = "fomm-faces-small"
        return c
    c.name = "fomm-voxceleb"
    c.data.shards = "data/voxceleb256"
    c.data.num_repeats = 75
    c.batch_size = 40
    return fomm_base.apply_variant(c, variant, "small")
