"""How are arrays sharded?

On a mesh with one axis, "data": variables are replicated, batches are split.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from maskanim_jax.errors import UserError, check_at_least


def make_mesh(batch_size: int, accumulate: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A one-dimensional mesh of all devices of all processes, or of those given.

    Raises UserError when a batch of `batch_size` cannot be split evenly over them, in `accumulate`
    microbatches.
    """
    count = jax.device_count() if devices is None else len(devices)
    check_at_least("config.optim.grad_accum_steps", accumulate)
    if batch_size % (count * accumulate):
        parts = f" in config.optim.grad_accum_steps={accumulate} parts" if accumulate > 1 else ""
        raise UserError(
            f"config.batch_size={batch_size} cannot be split over {count} devices{parts}: give a multiple of {count * accumulate}"
        )
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated_sharding(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_microbatches(mesh: Mesh, batch: jax.Array, parts: int) -> jax.Array:
    """(N, ...) to (parts, N / parts, ...), under jit: part i has rows i, i + parts, ...,
    so no row changes device.
    """
    rows = batch.reshape(batch.shape[0] // parts, parts, *batch.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, PartitionSpec(None, "data")))


def shard_batch(mesh: Mesh, batch: np.ndarray) -> jax.Array:
    """Places this process's part of a batch on its devices, as part of the global array."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Places a tree of host arrays on every device of the mesh."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(replicated_sharding(mesh), np.asarray(leaf)), tree
    )


def local_replica(tree: Any) -> Any:
    """This process's copy of replicated arrays, on one device, for evaluation
    independent of other processes.
    """
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def broadcast_from_process_0(value: bool) -> bool:
    """Process 0's value, in all processes; all must call it at the same step."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))
