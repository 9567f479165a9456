"""What does `make demo` train? Puppets, for at most ten minutes on two cores.

It shows every step of the workflow, not the best result; for that use configs/puppets.py.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import puppets


def get_config(variant: str = "paper") -> ConfigDict:
    """The puppets config, shortened."""
    return demo_run(puppets.get_config(variant))


def demo_run(c: ConfigDict) -> ConfigDict:
    """Shortens a puppets config of any system."""
    c.name = "demo"
    c.data.shards = "data/demo64v2"
    c.data.puppets.train_identities = 200
    c.data.puppets.validation_identities = 10
    c.data.puppets.test_identities = 10
    c.optim.max_steps = c.optim.cosine_steps = 1000
    c.optim.max_minutes = 9.5
    c.train.log_every = 25
    c.train.checkpoint_every = 200
    c.train.image_every = 200
    c.train.num_eval_clips = 10
    return c
