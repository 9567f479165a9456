"""BAIR robot pushing at 256 x 256: `configs/bair.py` follows the paper,
`:released` the authors' code.

`configs/bair.py:stable` follows the paper, with a change that prevents mask collapse.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common, perturbed_masks


def get_config(variant: str = "paper") -> ConfigDict:
    """The shards are prepared with

    python -m input_pipeline.prepare --input=bair --output=data/bair256 --size=256
    """
    c = perturbed_masks.for_variant(variant)
    c.name = "bair"
    c.data.shards = "data/bair256"
    c.data.sampling = "clip"
    if variant == "released":
        c.batch_size = 18
        c.loss.vgg_layers = common.FIVE_LAYERS
        c.perturb.threshold = c.perturb.test_threshold = "60"
    return c
