"""Drawn puppets at 64 x 64. Missing data is drawn first.

`configs/puppets.py:long` has a constant learning rate and averaged weights, so that you
can prolong it at any time. `configs/puppets.py:128` is the same at 128 x 128; start it from a
run at 64 with `config.init_from` and `config.init_grow`.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import perturbed_masks, small


def get_config(variant: str = "paper") -> ConfigDict:
    """Training never uses the held-out identities, whose true silhouettes are known."""
    own = variant in ("long", "128")
    c = puppets_run(small.small(perturbed_masks.for_variant("paper" if own else variant)))
    if variant == "128":
        frames_of_128(c)
        small.wide_generators(c)
        small.wide_perturbations(c)
        c.loss.coarse_pyramid_sizes = (64,)  # the masks stay at 32: a quarter of the frame, as in the paper
        c.mask.border = "same"  # 3 zeros of 32 would hide 7 % of the figures, heads and feet
    else:
        c.optim.mask_lr_multiplier = 0.3  # instead of 0.1; masks collapse at 1 (docs/results.md, "Which recipe")
    return long_run(c) if own else c


def puppets_run(c: ConfigDict) -> ConfigDict:
    """Data, steps and time limits of the run, for any system."""
    c.name = "puppets"
    c.data.shards = "data/puppets64v2"
    c.data.num_repeats = 4
    c.data.puppets.version = 2
    c.data.puppets.train_identities = 1000
    c.data.puppets.validation_identities = 20
    c.data.puppets.test_identities = 20
    c.data.puppets.frames = 24
    c.optim.epochs = 1000
    c.optim.max_steps = c.optim.cosine_steps = 16_000
    c.optim.max_minutes = 110.0
    c.train.checkpoint_every = 500
    c.train.image_every = 500
    return c


def long_run(c: ConfigDict) -> ConfigDict:
    """100,000 steps without a decay that would end the run; raise
    `optim.max_steps` to prolong it.
    """
    c.optim.cosine_steps = 0
    c.optim.ema = 0.999
    c.optim.max_steps = 100_000
    c.optim.max_minutes = 0.0
    c.train.checkpoint_every = c.train.image_every = 1000
    return c


def frames_of_128(c: ConfigDict) -> ConfigDict:
    """Data and loss at 128 x 128, for any system."""
    c.frame_size = 128
    c.data.shards = "data/puppets128v2"
    c.loss.pyramid_sizes = (128, 64)
    return c
