"""How is the project used from Python? `load` a checkpoint, then `animate` or `stream`;
`run_training` trains from a notebook.

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
    """Loads a config, such as "configs/puppets.py" or "configs/taichi.py:released", like --config.

    Change its fields and pass it to `run_training`.

    A misspelt field name raises AttributeError. Raises UserError when there is no such config.
    """
    config = config_files.load_config(name)
    config.lock()
    return config


def run_training(config: ConfigDict | str, workdir: str | os.PathLike[str]) -> Animator:
    """Trains like `python -m maskanim_jax.main`, or resumes the run in `workdir`.

    Returns the best checkpoint, ready to animate. `config` is the result of `load_config`, or a
    config's name. Raises UserError for invalid settings.
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
