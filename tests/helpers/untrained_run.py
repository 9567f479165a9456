"""A workdir with a checkpoint of step 0, in seconds: for tests that need a system that can be loaded, not one that was trained."""

from pathlib import Path

from tiny import tiny_config

from configs import fomm_puppets
from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.distributed.sharding import make_mesh
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import init_on_mesh
from maskanim_jax.workdir.config import write_config


def tiny_fomm():
    """FOMM for frames of 32 pixels."""
    c = fomm_puppets.get_config()
    c.name, c.frame_size = "tiny-fomm", 32
    for network in (c.keypoints, c.motion):
        network.width, network.num_blocks, network.max_width = 4, 2, 16
    c.generator.width, c.generator.max_width, c.generator.residual_blocks = 4, 8, 1
    c.loss.pyramid_sizes, c.loss.vgg_layers, c.loss.vgg = (32,), ("relu1_1",), "untrained"
    return c


def untrained(workdir, config):
    """`workdir`, made a run of `config` with its first variables."""
    system = build(config)
    write_config(Path(workdir), config)
    with CheckpointManager(Path(workdir)) as checkpoints:
        checkpoints.save(init_on_mesh(system, 0, 1, make_mesh(1)), {"steps_per_epoch": 1}, 1.0)
        checkpoints.wait_until_finished()
    return Path(workdir)


def two_systems(folder):
    """Workdirs `masks` and `keypoints` in `folder`."""
    return untrained(folder / "masks", tiny_config()), untrained(folder / "keypoints", tiny_fomm())
