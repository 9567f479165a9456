"""`python tests/helpers/small_train.py SHARDS WORKDIR`: the real training of the small system, as `maskanim_jax.main` would start it."""

import sys
from pathlib import Path

from small_system import SmallSystem
from tiny import tiny_config

from maskanim_jax.distributed import setup
from maskanim_jax.training import experiment, loop


def small_config(shards):
    """Three steps, each logged, one checkpoint."""
    config = tiny_config(shards)
    config.optim.max_steps, config.train.log_every, config.train.checkpoint_every = 3, 1, 3
    config.loss.vgg_layers, config.num_cpu_devices = ("relu1_1",), 1
    return config


if __name__ == "__main__":
    settings = small_config(sys.argv[1])
    setup.configure_jax(settings)
    experiment.build = lambda config: SmallSystem()
    loop.train(settings, Path(sys.argv[2]))
