"""What does `make demo` train?

It fine-tunes the bundled checkpoint on new puppets at 128 x 128; `:scratch` starts from nothing,
at 64 x 64.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import puppets
from maskanim_jax.errors import UserError

STARTS = ("puppets", "scratch")
"""Arguments of the config: which networks it starts from."""


def get_config(start: str = "puppets") -> ConfigDict:
    """The puppets config, shortened, with puppets of another seed; `start` is one of STARTS."""
    if start not in STARTS:
        raise UserError(f"this config's argument is {' or '.join(STARTS)}, not '{start}'")
    if start == "scratch":
        return demo_run(puppets.get_config())
    c = fine_tuned(demo_run(puppets.get_config("128")), start)
    c.optim.learning_rate = 1e-4
    return c


def demo_run(c: ConfigDict) -> ConfigDict:
    """Shortens a puppets config of any system."""
    c.name = "demo"
    c.data.shards = f"data/demo{c.frame_size}v2"
    c.data.puppets.seed = 1  # the bundled checkpoint was not trained on these identities and poses
    c.data.puppets.train_identities = 150
    c.data.puppets.validation_identities = 10
    c.data.puppets.test_identities = 10
    c.optim.max_steps = c.optim.cosine_steps = 1500
    c.optim.max_minutes = 4.5
    c.train.log_every = 25
    c.train.checkpoint_every = 200
    c.train.image_every = 200
    c.train.num_eval_clips = 10
    return c


def fine_tuned(c: ConfigDict, start: str) -> ConfigDict:
    """Starts a demo of any system at 128 from the bundled checkpoint `start`, with fewer steps than
    at 64, since they are longer.
    """
    c.init_from = start
    c.optim.ema = 0.0  # an average over the last thousand steps would be the start
    c.optim.max_steps = c.optim.cosine_steps = 400
    c.optim.max_minutes = 3.5
    c.train.checkpoint_every = c.train.image_every = 100
    return c
