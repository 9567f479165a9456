"""A Perturbed Masks config so small that a step takes milliseconds, and a tiny embedded data set for it."""

from pathlib import Path

from ml_collections import ConfigDict

from configs import puppets


def tiny_config(shards: Path | str = "") -> ConfigDict:
    """32-pixel frames, masks of 16, untrained VGG features of the first layer."""
    c = puppets.get_config()
    c.name = "tiny"
    c.frame_size, c.batch_size = 32, 8
    c.mask.size = 16
    for network in (c.mask, c.refine, c.fine):
        network.width, network.num_blocks, network.max_width = 4, 2, 16
    c.coarse.width, c.coarse.residual_blocks = 8, 1
    c.loss.pyramid_sizes = c.loss.coarse_pyramid_sizes = (32,)
    c.loss.vgg_layers = ("relu1_1",)
    c.loss.vgg = "untrained"
    c.data.shards = str(shards)
    c.data.num_repeats = 4
    c.data.puppets.train_identities, c.data.puppets.test_identities, c.data.puppets.frames = 6, 3, 5
    c.data.puppets.validation_identities = 3
    c.optim.max_steps, c.optim.cosine_steps, c.optim.max_minutes = 6, 0, 0.0
    c.train.log_every = c.train.checkpoint_every = 2
    c.train.image_every = 4
    c.train.num_eval_clips = c.train.eval_frames = 2
    c.animate.pairs = 1
    return c


def one_step_config(shards: Path | str) -> ConfigDict:
    """One step, in which all networks learn; each has one level."""
    config = tiny_config(shards)
    for network in (config.mask, config.refine, config.fine):
        network.num_blocks = 1
    config.optim.max_steps, config.refine.start_epoch = 1, 0
    return config


def smallest_config() -> ConfigDict:
    """Perturbed Masks with every kind of layer once: the number of operations does not depend on the sizes."""
    config = tiny_config()
    config.frame_size, config.mask.size, config.loss.vgg_layers = 16, 8, ("relu1_1",)
    config.loss.pyramid_sizes = config.loss.coarse_pyramid_sizes = (16,)
    for network in (config.mask, config.refine, config.fine):
        network.num_blocks = 1
    return config
