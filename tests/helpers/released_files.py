"""Files of the released implementations with random tensors, and what a run holds: for the tests of conversion."""

import functools

import jax
import numpy as np
from tiny import tiny_config

from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.conversion.contents import _shape
from maskanim_jax.conversion.layout import UnmappedTensor, modules, released, trained
from maskanim_jax.distributed.sharding import make_mesh
from maskanim_jax.serialization.torch_writer import write_tensors
from maskanim_jax.systems import build
from maskanim_jax.systems.train_state import abstract_state


@functools.cache
def _shapes(text):
    import json

    from ml_collections import ConfigDict

    config = ConfigDict(json.loads(text), convert_dict=True)
    return jax.eval_shape(build(config).init, jax.random.key(0))


def shapes(config):
    """Variables of a config, shapes alone."""
    return _shapes(config.to_json_best_effort())


def released_file(path, config, change=lambda tree: None, updates=12, epoch=3, waits=()):
    """A file of the released code for a config, every tensor random; networks of `waits` were updated three epochs of four."""
    optimisers = {}
    like, rng = shapes(config), np.random.default_rng(0)
    places = released(config).layout(config)
    tree = {module: {} for module in modules(places)}
    for name, at in places.items():
        module, rest = name.split(".", 1)
        if isinstance(at, UnmappedTensor):
            at_least = np.array(7) if at.default.dtype.kind == "i" else rng.random(at.default.shape, np.float32)
            tree[module][rest] = at.default if at.fixed else at_least
        else:
            tree[module][rest] = rng.random(_shape(at, like), np.float32) + 0.5
    for module in tree:
        names, state = trained(places, module), {}
        for number, name in enumerate(names):
            if not isinstance(places[name], UnmappedTensor):
                one, two = rng.standard_normal((2, *tree[module][name.split(".", 1)[1]].shape), np.float32)
                steps = updates * 3 // 4 if places[name].path[0] in waits else updates
                state[number] = {"step": np.float32(steps), "exp_avg": one, "exp_avg_sq": two**2}
        group = {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-8, "params": list(range(len(names)))}
        optimisers[f"optimizer_{module}"] = {"state": state, "param_groups": [group]}
    tree |= optimisers | {"epoch": epoch}
    change(tree)
    write_tensors(path, tree)
    return path


def arrays(tree, name=""):
    """Every array of a nested dict by its full name."""
    if isinstance(tree, dict):
        return {k: v for key, item in tree.items() for k, v in arrays(item, f"{name}.{key}").items()}
    return {name: tree} if isinstance(tree, np.ndarray) else {}


def state_of(workdir, config, steps_per_epoch=3):
    """The newest state of a run."""
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        like = abstract_state(build(config), 0, steps_per_epoch)
        return jax.device_get(checkpoints.restore(checkpoints.latest_step(), like, make_mesh(8)))


def assert_equal_trees(one, other):
    """Bit for bit."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_equal_files(before, after):
    """Two trees of `read_tensors`: the same names in the same order, numbers bit for bit, the same epoch."""
    assert list(before) == list(after)
    one, other = arrays(before), arrays(after)
    assert list(one) == list(other)
    for name, value in one.items():
        assert other[name].dtype == value.dtype, name
        np.testing.assert_array_equal(other[name], value, name)
    assert after["epoch"] == before["epoch"]


def small_config(shards=""):
    """The tiny config with the released networks' form."""
    config = tiny_config(shards)
    config.mask.temperature = config.refine.temperature = 0.1
    config.mask.border, config.mask.normalise_logits, config.mask.logit_offset = "zero", False, 0.0
    return config


def pm_file(path, change=lambda tree: None, updates=12, epoch=3):
    """A file of Perturbed Masks' released code for `small_config`, in which r waited an epoch."""
    return released_file(path, small_config(), change, updates, epoch, waits=("refine",))
