"""How does a wider network start from a narrower one? With the same output, and new channels.

The narrow network's channels keep their values. A new channel has its own fresh kernel, but the
old channels have a kernel of zeros for it, so the output does not change until the first
step. (Net2Net, Chen et al., ICLR 2016, keeps the output by copies of channels instead.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_KERNEL = "kernel"
Shape = tuple[int, ...]


def is_wider(narrow: Shape, wide: Shape) -> bool:
    """Whether a tensor can grow to another shape: no axis is shorter, and a kernel (H, W, inputs,
    outputs) has the same H and W.
    """
    return (
        len(narrow) == len(wide)
        and narrow[:-2] == wide[:-2]
        and all(before <= after for before, after in zip(narrow, wide, strict=True))
    )


def input_positions(name: str, narrow: Mapping[str, Shape], wide: Mapping[str, Shape]) -> np.ndarray:
    """Where the inputs of the narrow kernel `name` are among those of the wide one, (inputs,) int.

    In a U-Net, a kernel's inputs are the channels of the block before it and then those of the skip
    connection (`nn.blocks.EncoderDecoder`), so that the latter move.
    """
    inputs = np.arange(narrow[name][2])
    before = _block_before(name)
    if before is None or before not in narrow:
        return inputs
    old, new = narrow[before][-1], wide[before][-1]
    return np.where(inputs < old, inputs, inputs + new - old)


def _block_before(name: str) -> str | None:
    """The kernel whose outputs are the first inputs of the kernel `name`, if skipped channels may
    follow: that of the up block before, or of the last one for a conv beside the U-Net's body.
    """
    parts = name.split("/")
    if parts[-1] != _KERNEL:
        return None
    block = parts[-3]
    if block.startswith("up") and block[2:].isdigit() and parts[-4] == "body":
        return "/".join([*parts[:-3], f"up{int(block[2:]) + 1}", *parts[-2:]])
    return "/".join([*parts[:-2], "body", "up0", "conv", _KERNEL])


def widened(narrow: Any, fresh: Any, positions: np.ndarray | None) -> np.ndarray:
    """The tensor `narrow`, grown to the shape of `fresh`, which gives the new channels' values.

    `positions` are those of `input_positions` for a kernel.
    """
    result = np.array(fresh)
    if positions is None:
        result[tuple(slice(length) for length in np.shape(narrow))] = narrow
        return result
    outputs = np.shape(narrow)[-1]
    result[..., :outputs] = 0
    result[:, :, positions, :outputs] = narrow
    return result
