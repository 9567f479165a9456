"""How large are the networks in a checkpoint file? Determined from tensor names and shapes.

Sizes that the file does not determine are omitted: the config keeps its own values, and the check
of the tensors names what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]
MOST_BLOCKS = 64
"""The most blocks of a network; the released code has no network with more."""


def count(given: Shapes, prefix: str, suffix: str = "") -> int:
    """The number of consecutive names `PREFIX0SUFFIX...`, `PREFIX1SUFFIX...`, ..."""
    for number in range(MOST_BLOCKS):
        start = f"{prefix}{number}{suffix}."
        if not any(name.startswith(start) for name in given):
            return number
    return MOST_BLOCKS


def outputs(given: Shapes, conv: str) -> int:
    """Output channels of a convolution, with or without spectral norm; 0 when the file has no such
    kernel.
    """
    shape = given.get(f"{conv}.weight") or given.get(f"{conv}.weight_orig") or ()
    return shape[0] if len(shape) == 4 else 0


def inputs(given: Shapes, conv: str) -> int:
    """Input channels of a convolution, with or without spectral norm; 0 when the file has no such
    kernel.
    """
    shape = given.get(f"{conv}.weight") or given.get(f"{conv}.weight_orig") or ()
    return shape[1] if len(shape) == 4 else 0


def doubling(given: Shapes, conv: str, usual_max: int, first: int = 2) -> dict[str, int]:
    """`width`, `num_blocks` and `max_width` of a row of convolutions with doubling channels; {}
    when the file has none of them.

    `conv` is the name of one of them, with `{}` for its number. The first has `first` x `width`
    output channels, and none has more than `max_width`. If the file does not reach that limit,
    `max_width` is `usual_max`.
    """
    found: list[int] = []
    while len(found) < MOST_BLOCKS and (channels := outputs(given, conv.format(len(found)))):
        found.append(channels)
    if not found:
        return {}
    width = max(1, found[0] // first)
    last = width * first << (len(found) - 1)
    max_width = found[-1] if found[-1] < last else max(usual_max, found[-1])
    return {"width": width, "num_blocks": len(found), "max_width": max_width}


def encoder_decoder(given: Shapes, prefix: str, usual_max: int = 1024) -> dict[str, int]:
    """`width`, `num_blocks` and `max_width` of the encoder-decoder or U-Net called `name`."""
    found = doubling(given, f"{prefix}.encoder.down_blocks.{{}}.conv", usual_max)
    # An incomplete file does not show how many blocks there were.
    return found if found and count(given, f"{prefix}.decoder.up_blocks.") == found["num_blocks"] else {}


def downscale(given: Shapes, prefix: str) -> int:
    """The factor of the anti-aliased downscale called `name`: its kernel has 4 (factor - 1) + 1
    rows. 1 without the tensor.
    """
    shape = given.get(f"{prefix}.weight", ())
    return (shape[-1] - 1) // 4 + 1 if len(shape) == 4 and shape[-1] % 4 == 1 else 1
