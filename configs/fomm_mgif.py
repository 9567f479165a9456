"""FOMM on moving GIFs: `configs/fomm_mgif.py` as released at 256 x 256,
`:small` at 64 x 64 for a CPU.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import fomm_base, mgif


def get_config(variant: str = "full") -> ConfigDict:
    """The shards are prepared with

        python -m input_pipeline.prepare --input=moving-gif --output=data/mgif256 --size=256

    For `:small`, use mgif64 and --size=64.
    """
    c = fomm_base.get_config()
    if variant == "small":  # data, pairs, steps and batch size of configs/mgif.py:small
        mgif.small_run(fomm_base.from_puppets(fomm_base.small(c)))
        c.name = "fomm-mgif-small"
        return c
    fomm_base.adversarial(c, spectral_norm=True)
    c.name = "fomm-mgif"
    c.data.shards = "data/mgif256"
    c.data.num_repeats = 25  # per clip: a clip without '#' in its name is its own identity
    c.data.brightness = c.data.contrast = c.data.saturation = 0.0
    c.data.hue = 0.5
    c.data.resize_low, c.data.resize_high = 0.9, 1.1
    c.data.random_crop = True
    c.keypoints.single_jacobian = True
    c.batch_size = 36
    return fomm_base.apply_variant(c, variant, "small")
