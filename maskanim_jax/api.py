"""How is the project used from Python? `load` a checkpoint, then `animate` or `stream`; `run_training` trains from a notebook.

import maskanim_jax

animator = maskanim_jax.load("demo")
animator.animate("photo.png", "video.mp4", output="out.mp4")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from maskanim_jax.animation.animator import AnimationStream, Animator, load
from maskanim_jax.utils.paths import path_or_bucket
from maskanim_jax.workdir import config_files

if TYPE_CHECKING:
    from ml_collections import ConfigDict

__all__ = ["AnimationStream", "Animator", "load", "load_config", "run_training"]


def load_config(name: str) -> ConfigDict:
    """A config as --config takes it, "configs/puppets.py" or "configs/taichi.py:released", to change and give to `run_training`.

    A slip in a field's name raises AttributeError. Raises UserError when there is no such config.
    """
    config = config_files.load_config(name)
    config.lock()
    return config


def run_training(config: ConfigDict | str, workdir: str | os.PathLike[str]) -> Animator:
    """Trains as `python -m maskanim_jax.main` does, or goes on with what `workdir` holds; returns the best checkpoint, ready to animate.

    `config` is what `load_config` gives, or its name. Raises UserError for what cannot be.
    """
    from absl import flags

    from maskanim_jax.distributed import setup
    from maskanim_jax.training import loop

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # a notebook has no command line, and Grain and Orbax ask for flags
    if isinstance(config, str):
        config = load_config(config)
    setup.configure_jax(config)
    loop.train(config, path_or_bucket(workdir))
    return load(workdir)
