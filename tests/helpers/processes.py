"""Several processes of one training on this machine, and what they leave."""

import os
import socket
import time

import hosts_train
import jax
import numpy as np
from forked import Forked
from small_system import SmallSystem

from maskanim_jax.checkpoints.manager import CheckpointManager
from maskanim_jax.distributed.sharding import make_mesh
from maskanim_jax.systems.train_state import abstract_state
from maskanim_jax.workdir.logs import read_log

ROUNDING = {"rtol": 1e-4, "atol": 5e-5}
"""How far apart the states of different numbers of processes may be: an all-reduce adds in another order, and so may the compiler.

Measured after eight steps, for four processes and for one with four devices, and for the same steps in float64: batch norm's
running mean differs most, by 2.1e-6 in a channel whose mean is near zero (0.0012). From float64 four processes are 0.9e-6
away and one is 1.2e-6. Kernels differ by 2.3e-7; both are 1e-7 from float64.
"""
EIGHT_STEPS = ["optim.max_steps=8", "train.checkpoint_every=4"]


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as listening:
        listening.bind(("localhost", 0))
        return listening.getsockname()[1]


class Processes:
    """This many processes of one training; ends them all when the block ends."""

    def __init__(self, count, shards, workdir, *fields, of_last=()):
        port, self.started = free_port(), []
        for index in range(count):
            env = os.environ | {"MASKANIM_DISTRIBUTED_WAIT": "120"}
            if count > 1:
                env["MASKANIM_DISTRIBUTED"] = f"localhost:{port},{count},{index}"
            last = of_last if index == count - 1 else ()
            arguments = [str(shards), str(workdir), *fields, *last]
            self.started.append(Forked(hosts_train.run, arguments, env))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.started:
            process.kill()

    def ends(self):
        """(status, stderr) of each."""
        said = [process.communicate(timeout=300)[1] for process in self.started]
        return list(zip([process.returncode for process in self.started], said, strict=True))

    def until(self, happened):
        """Waits until `happened()`, while all are alive."""
        while not happened():
            assert all(process.poll() is None for process in self.started), self.ends()
            time.sleep(0.1)


def state_at(workdir, step):
    """Numbers of a checkpoint, all arrays of the state in one."""
    like = abstract_state(SmallSystem(), 0, 3)
    with CheckpointManager(workdir, read_only=True) as checkpoints:
        state = checkpoints.restore(step, like, make_mesh(8, devices=jax.devices()[:1]))
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(state)])


def losses(workdir):
    return {line["step"]: line["loss"] for line in read_log(workdir) if "loss" in line}
