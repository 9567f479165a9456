"""Moving GIFs of cartoon animals: `configs/mgif.py` (or `:released`) at 256 x 256,
`:small` at 64 x 64 for a CPU.

`configs/mgif.py:stable` follows the paper, with a change that prevents mask collapse.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import perturbed_masks, small


def get_config(variant: str = "paper") -> ConfigDict:
    """The shards are prepared with

        python -m input_pipeline.prepare --input=moving-gif --output=data/mgif256 --size=256

    For `:small`, use mgif64 and --size=64.
    """
    c = perturbed_masks.for_variant("paper" if variant == "small" else variant)
    c.name = "mgif"
    c.data.shards = "data/mgif256"
    c.data.sampling = "clip"
    if variant == "small":
        small_run(small.from_puppets(small.small(c)))
    return c


def small_run(c: ConfigDict) -> ConfigDict:
    """Data, steps and time limits of the small run, for any system."""
    small.real_data(c, "mgif-small", "data/mgif64")
    c.optim.max_steps = c.optim.cosine_steps = 20_000
    c.optim.max_minutes = 0.0
    c.train.num_eval_clips = 40
    return c
