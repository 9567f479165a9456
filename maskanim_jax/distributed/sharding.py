"""Where do arrays live? A mesh with one axis, "data": variables on every device, batches split over all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from maskanim_jax.errors import UserError, check_at_least


def make_mesh(batch_size: int, accumulate: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices of all processes in a row, or those given.

    Raises UserError when a batch of `batch_size` cannot be split evenly over them, in `accumulate` parts.
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
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_microbatches(mesh: Mesh, batch: jax.Array, parts: int) -> jax.Array:
    """(N, ...) to (parts, N / parts, ...), under jit: part i has rows i, i + parts, ..., so that no row leaves its device."""
    rows = batch.reshape(batch.shape[0] // parts, parts, *batch.shape[1:]).swapaxes(0, 1)
    return jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, PartitionSpec(None, "data")))


def shard_batch(mesh: Mesh, batch: np.ndarray) -> jax.Array:
    """This process' part of a batch to its devices, as a part of the global array."""
    return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """A tree of host arrays on every device of the mesh."""
    return jax.tree.map(
        lambda leaf: jax.make_array_from_process_local_data(replicated_sharding(mesh), np.asarray(leaf)), tree
    )


def local_replica(tree: Any) -> Any:
    """This process' own copy of replicated arrays, on one of its devices: what evaluation runs on, whatever the other processes do."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def broadcast_from_process_0(value: bool) -> bool:
    """The first process' value, in all processes; all must ask at the same step."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))
