"""How does each device work off its own part of a batch? For what XLA would not split, or would add up in more sums than one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

BATCH, WHOLE = PartitionSpec("data"), PartitionSpec()
"""An array that is split over the devices, and one that each device has."""

Call = Callable[..., jax.Array]


def on_each_device(call: Call, inputs: tuple[Any, ...], output: PartitionSpec, batch: int) -> Call:
    """`call` on each device of the mesh that is named around it, of its part of the inputs that are BATCH; a WHOLE result is summed.

    Without a mesh, and for a batch that the devices cannot share (the one source of a video), it is `call` itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty or mesh.are_all_axes_manual else mesh.shape.get("data", 1)
    if devices == 1 or batch % devices:
        return call
    return jax.shard_map(
        (lambda *parts: lax.psum(call(*parts), "data")) if output == WHOLE else call, in_specs=inputs, out_specs=output
    )
