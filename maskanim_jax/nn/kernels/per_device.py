"""How does each device process its own part of a batch?

For operations that XLA would not split, or would reduce more than once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

BATCH, WHOLE = PartitionSpec("data"), PartitionSpec()
"""Partition specs: split over the devices, and replicated on each device."""

Call = Callable[..., jax.Array]


def apply_per_device(call: Call, inputs: tuple[Any, ...], output: PartitionSpec, batch: int) -> Call:
    """`call` on each device of the current mesh, with its part of the BATCH inputs; a WHOLE result
    is summed over the devices.

    Without a mesh, or for a batch that the devices cannot share (such as the single source of a
    video), it returns `call` itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    devices = 1 if mesh.empty or mesh.are_all_axes_manual else mesh.shape.get("data", 1)
    if devices == 1 or batch % devices:
        return call
    if output != WHOLE:
        return jax.shard_map(call, in_specs=inputs, out_specs=output)
    # With check_vma, the transpose of a convolution would sum over the devices itself, and psum once more.
    return jax.shard_map(
        lambda *parts: lax.psum(call(*parts), "data"), in_specs=inputs, out_specs=output, check_vma=False
    )
