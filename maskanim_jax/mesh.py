"""Where do arrays live? A mesh with one axis, "data": variables on every device, batches split over all of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from maskanim_jax.errors import UserError


def make_mesh(batch_size: int) -> Mesh:
    """All devices of all processes in a row; raises UserError when a batch of `batch_size` cannot be split evenly over them."""
    count = jax.device_count()
    if batch_size % count:
        raise UserError(
            f"config.batch_size={batch_size} cannot be split over {count} devices: give a multiple of {count}"
        )
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_devices(mesh: Mesh, batch: np.ndarray) -> jax.Array:
    """This process' part of a batch to its devices, as a part of the global array."""
    return jax.make_array_from_process_local_data(split(mesh), batch)


def everywhere(mesh: Mesh, tree: Any) -> Any:
    """A tree of host arrays on every device of the mesh."""
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(replicated(mesh), np.asarray(leaf)), tree)


def local(tree: Any) -> Any:
    """This process' own copy of replicated arrays, on one of its devices: what evaluation runs on, whatever the other processes do."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
