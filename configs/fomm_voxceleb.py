"""FOMM on VoxCeleb at 256 x 256, as released."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base


def get_config(variant: str = "full") -> ConfigDict:
    """Shards from `python -m input_pipeline.prepare --input=vox --output=data/voxceleb256 --size=256`."""
    c = fomm_base.get_config()
    c.name = "fomm-voxceleb"
    c.data.shards = "data/voxceleb256"
    c.data.repeats = 75
    c.batch_size = 40
    return fomm_base.vary(c, variant)
