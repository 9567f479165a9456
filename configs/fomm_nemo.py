"""FOMM on UvA-Nemo at 256 x 256, as released: adversarial, with spectral norm."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base


def get_config(variant: str = "full") -> ConfigDict:
    """The shards are prepared with

    python -m input_pipeline.prepare --input=nemo --output=data/nemo256 --size=256
    """
    c = fomm_base.adversarial(fomm_base.get_config(), spectral_norm=True)
    c.name = "fomm-nemo"
    c.data.shards = "data/nemo256"
    c.data.num_repeats = 8  # per clip: a clip without '#' in its name is its own identity
    c.batch_size = 36
    return fomm_base.apply_variant(c, variant)
