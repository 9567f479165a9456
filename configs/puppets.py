"""Drawn puppets at 64 x 64: up to two hours on two cores. Missing data is drawn first."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import perturbed_masks, small


def get_config(variant: str = "paper") -> ConfigDict:
    """Training never uses the held-out identities, whose true silhouettes are known."""
    return puppets_run(small.small(perturbed_masks.for_variant(variant)))


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
    c.optim.max_steps = c.optim.cosine_steps = 5000
    c.optim.max_minutes = 110.0
    c.train.checkpoint_every = 500
    c.train.image_every = 500
    return c
