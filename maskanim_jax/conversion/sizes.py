"""How large are the networks in a checkpoint file? Determined from tensor names and shapes.

What a file lacks is left out of the answer, so that the config keeps its own value and the check of the tensors names what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping

Shapes = Mapping[str, tuple[int, ...]]
MOST_BLOCKS = 64
"""Of a network; names of more blocks than that come from no released code."""


def count(given: Shapes, prefix: str, suffix: str = "") -> int:
    """How many of `PREFIX0SUFFIX...`, `PREFIX1SUFFIX...`, ... there are in a row."""
    for number in range(MOST_BLOCKS):
        start = f"{prefix}{number}{suffix}."
        if not any(name.startswith(start) for name in given):
            return number
    return MOST_BLOCKS


def outputs(given: Shapes, conv: str) -> int:
    """Output channels of a convolution, with or without spectral norm; 0 when the file has no such kernel."""
    shape = given.get(f"{conv}.weight") or given.get(f"{conv}.weight_orig") or ()
    return shape[0] if len(shape) == 4 else 0


def inputs(given: Shapes, conv: str) -> int:
    """Input channels of a convolution, with or without spectral norm; 0 when the file has no such kernel."""
    shape = given.get(f"{conv}.weight") or given.get(f"{conv}.weight_orig") or ()
    return shape[1] if len(shape) == 4 else 0


def doubling(given: Shapes, conv: str, usual_max: int, first: int = 2) -> dict[str, int]:
    """`width`, `num_blocks` and `max_width` of a row of convolutions whose channels double; {} when the file has none of them.

    `conv` names one of them with `{}` for its number. The first gives `first` x width channels, none more than `max_width`;
    that is `usual_max` where the file does not reach it.
    """
    found: list[int] = []
    while len(found) < MOST_BLOCKS and (channels := outputs(given, conv.format(len(found)))):
        found.append(channels)
    if not found:
        return {}
    width = max(1, found[0] // first)
    last = width * first << (len(found) - 1)
    most = found[-1] if found[-1] < last else max(usual_max, found[-1])
    return {"width": width, "num_blocks": len(found), "max_width": most}


def encoder_decoder(given: Shapes, prefix: str, usual_max: int = 1024) -> dict[str, int]:
    """`width`, `num_blocks` and `max_width` of the encoder-decoder or U-Net of that name."""
    found = doubling(given, f"{prefix}.encoder.down_blocks.{{}}.conv", usual_max)
    # A file that is not whole says little about how many blocks there were.
    return found if found and count(given, f"{prefix}.decoder.up_blocks.") == found["num_blocks"] else {}


def downscale(given: Shapes, prefix: str) -> int:
    """By how much the anti-aliased downscale of that name makes frames smaller: its kernel has 4 (step - 1) + 1 rows; 1 without it."""
    shape = given.get(f"{prefix}.weight", ())
    return (shape[-1] - 1) // 4 + 1 if len(shape) == 4 and shape[-1] % 4 == 1 else 1
