"""Moving GIFs of cartoon animals: `configs/mgif.py` (or `:released`) at 256 x 256, `configs/mgif.py:small` at 64 x 64 for two cores.

`configs/mgif.py:stable` is the paper's reading with what keeps masks alive.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import perturbed_masks, small


def get_config(reading: str = "paper") -> ConfigDict:
    """Shards from `python -m input_pipeline.prepare --input=moving-gif --output=data/mgif256 --size=256`, or mgif64 with --size=64."""
    c = perturbed_masks.start("paper" if reading == "small" else reading)
    c.name = "mgif"
    c.data.shards = "data/mgif256"
    c.data.sampling = "clip"
    if reading == "small":
        small_run(small.small(c))
        # The paper's A: with the wide one these masks died by step 300.
        c.data.driving_jitter_scale, c.data.driving_invert_prob = 1.0, 0.0
    return c


def small_run(c: ConfigDict) -> ConfigDict:
    """The data, steps and times of the small run, whatever the system."""
    small.real_clips(c, "mgif-small", "data/mgif64")
    c.train.num_eval_clips = 40
    return c
