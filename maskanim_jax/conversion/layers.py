"""Which names do a layer's tensors have in the released implementations? Both use the same blocks.

Every function yields (full PyTorch name, location here) in the order of PyTorch's state dict.
`theirs` is the prefix of the PyTorch names, `ours` the path here.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from maskanim_jax.conversion.layout import ParamMapping, UnmappedTensor

Rows = Iterator[tuple[str, ParamMapping | UnmappedTensor]]


def conv(theirs: str, *ours: str) -> Rows:
    """A convolution with bias."""
    yield f"{theirs}.weight", ParamMapping("params", (*ours, "kernel"), True)
    yield f"{theirs}.bias", ParamMapping("params", (*ours, "bias"), False)


def affine(theirs: str, *ours: str) -> Rows:
    """The scale and shift of a norm: all the tensors that instance norm has."""
    yield f"{theirs}.weight", ParamMapping("params", (*ours, "scale"), False)
    yield f"{theirs}.bias", ParamMapping("params", (*ours, "bias"), False)


def norm(theirs: str, *ours: str) -> Rows:
    """A batch norm."""
    yield from affine(theirs, *ours)
    yield f"{theirs}.running_mean", ParamMapping("stats", (*ours, "mean"), False)
    yield f"{theirs}.running_var", ParamMapping("stats", (*ours, "var"), False)
    yield f"{theirs}.num_batches_tracked", UnmappedTensor(np.zeros((), np.int64))


def block(theirs: str, *ours: str) -> Rows:
    """A same, down or up block."""
    yield from conv(f"{theirs}.conv", *ours, "conv")
    yield from norm(f"{theirs}.norm", *ours, "norm")


def residual(theirs: str, *ours: str) -> Rows:
    """A residual block."""
    for i in (1, 2):
        yield from conv(f"{theirs}.conv{i}", *ours, f"conv{i}")
    for i in (1, 2):
        yield from norm(f"{theirs}.norm{i}", *ours, f"norm{i}")


def encoder_decoder(theirs: str, blocks: int, *ours: str) -> Rows:
    """An encoder-decoder or U-Net with `blocks` blocks."""
    for i in range(blocks):
        yield from block(f"{theirs}.encoder.down_blocks.{i}", *ours, f"down{i}")
    for i in range(blocks):
        # PyTorch numbers up blocks in running order; here they have the number of their encoder block.
        yield from block(f"{theirs}.decoder.up_blocks.{i}", *ours, f"up{blocks - 1 - i}")


def spectral_conv(theirs: str, *ours: str) -> Rows:
    """A convolution with spectral norm.

    Its singular vectors are statistics: `u` over the outputs, `v` over (I, H, W) on both sides.
    """
    yield f"{theirs}.bias", ParamMapping("params", (*ours, "bias"), False)
    yield f"{theirs}.weight_orig", ParamMapping("params", (*ours, "kernel"), True)
    yield f"{theirs}.weight_u", ParamMapping("stats", (*ours, "u"), False)
    yield f"{theirs}.weight_v", ParamMapping("stats", (*ours, "v"), False)


def blur(theirs: str, step: int) -> Rows:
    """The Gaussian of the anti-aliased downscale by `step`, which PyTorch stores as a tensor: (3,
    1, K, K) float32. Step 1 has none.
    """
    if step == 1:
        return
    sigma = (step - 1) / 2
    offsets = np.arange(-round(4 * sigma), round(4 * sigma) + 1)
    taps = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    yield (
        f"{theirs}.weight",
        UnmappedTensor(np.broadcast_to(kernel, (3, 1, *kernel.shape)).astype(np.float32), fixed=True),
    )
