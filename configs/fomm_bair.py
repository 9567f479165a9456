"""FOMM on BAIR robot pushing at 256 x 256, as released: adversarial, with spectral norm."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base


def get_config(variant: str = "full") -> ConfigDict:
    """The shards are prepared with

    python -m input_pipeline.prepare --input=bair --output=data/bair256 --size=256
    """
    c = fomm_base.adversarial(fomm_base.get_config(), spectral_norm=True)
    c.name = "fomm-bair"
    c.data.shards = "data/bair256"
    c.data.sampling = "clip"
    c.batch_size = 36
    c.optim.epochs = 20
    c.optim.decay_epochs = (12, 18)
    return fomm_base.apply_variant(c, variant)
