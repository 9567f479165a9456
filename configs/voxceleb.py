"""VoxCeleb: `configs/voxceleb.py` (as in the paper) or `:released` at 256 x 256,
`:small` at 64 x 64 for a CPU.

`configs/voxceleb.py:stable` follows the paper, with a change that prevents mask collapse.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import perturbed_masks, small


def get_config(variant: str = "paper") -> ConfigDict:
    """The shards are prepared with

        python -m input_pipeline.prepare --input=vox --output=data/voxceleb256 --size=256

    For `:small`, use faces64 and --size=64.
    """
    c = perturbed_masks.for_variant("paper" if variant == "small" else variant)
    c.name = "voxceleb"
    c.data.shards = "data/voxceleb256"
    c.data.num_repeats = 75
    if variant == "released":
        c.perturb.threshold = c.perturb.test_threshold = "100"
    if variant == "small":
        small_run(small.from_puppets(small.small(c)))
    return c


def small_run(c: ConfigDict) -> ConfigDict:
    """Data, steps and time limits of the small run, for any system."""
    small.real_data(c, "faces-small", "data/faces64")
    c.optim.max_steps = c.optim.cosine_steps = 20_000
    c.optim.epochs = 2000  # of 10 steps, with 43 clips
    c.optim.patience = 3000
    c.optim.max_minutes = 0.0
    c.train.eval_frames = 32  # of only 8 validation clips
    return c
