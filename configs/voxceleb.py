"""VoxCeleb: `configs/voxceleb.py` (the paper's reading) or `:released` at 256 x 256, `configs/voxceleb.py:small` at 64 x 64 for two cores.

`configs/voxceleb.py:stable` is the paper's reading with what keeps masks alive.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import perturbed_masks, small


def get_config(reading: str = "paper") -> ConfigDict:
    """Shards from `python -m input_pipeline.prepare --input=vox --output=data/voxceleb256 --size=256`, or faces64 with --size=64."""
    c = perturbed_masks.start("paper" if reading == "small" else reading)
    c.name = "voxceleb"
    c.data.shards = "data/voxceleb256"
    c.data.num_repeats = 75
    if reading == "released":
        c.perturb.threshold = c.perturb.test_threshold = "100"
    if reading == "small":
        small_run(small.small(c))
        c.data.driving_jitter_scale, c.data.driving_invert_prob = 1.0, 0.0  # the paper's A, as for moving GIFs
    return c


def small_run(c: ConfigDict) -> ConfigDict:
    """The data, steps and times of the small run, whatever the system."""
    return small.real_clips(c, "faces-small", "data/faces64")
