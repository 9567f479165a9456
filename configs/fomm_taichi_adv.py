"""FOMM on Tai-Chi-HD with a discriminator that sees the keypoints, as released."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base, fomm_taichi


def get_config(variant: str = "full") -> ConfigDict:
    """Uses the shards of `configs/fomm_taichi.py`; trains from scratch,
    longer and without decay.
    """
    c = fomm_base.adversarial(fomm_taichi.get_config(), keypoints=True)
    c.name = "fomm-taichi-adv"
    c.batch_size = 27
    c.optim.epochs = 150
    c.optim.decay_epochs = ()
    return fomm_base.apply_variant(c, variant)
