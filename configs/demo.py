"""What `make demo` trains: the bundled checkpoint goes on with puppets that it never saw; `configs/demo.py:scratch` starts from nothing."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import puppets
from maskanim_jax.errors import UserError

STARTS = ("puppets", "scratch")
"""Arguments of the config: where its networks start from."""


def get_config(start: str = "puppets") -> ConfigDict:
    """The puppets config, shorter, on the puppets of another world; `start` is one of STARTS."""
    if start not in STARTS:
        raise UserError(f"this config's argument is {' or '.join(STARTS)}, not '{start}'")
    c = run(puppets.get_config())
    if start != "scratch":
        c.init_from = start
    return c


def run(c: ConfigDict) -> ConfigDict:
    """Shortens a puppets config of any system."""
    c.name = "demo"
    c.data.shards = "data/demo64v2"
    c.data.puppets.seed = 1  # nobody trained the bundled checkpoint on these identities and poses
    c.data.puppets.train_identities = 200
    c.data.puppets.validation_identities = 10
    c.data.puppets.test_identities = 10
    c.optim.max_steps = c.optim.cosine_steps = 1000
    c.optim.max_minutes = 6.0
    c.train.log_every = 25
    c.train.checkpoint_every = 200
    c.train.image_every = 200
    c.train.num_eval_clips = 10
    return c
