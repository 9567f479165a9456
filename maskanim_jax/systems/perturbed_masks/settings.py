"""Which settings of Perturbed Masks can be, and which depart from the paper?"""

from __future__ import annotations

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError
from maskanim_jax.losses.vgg import check_taps
from maskanim_jax.nn.types import PRECISIONS
from maskanim_jax.systems.perturbed_masks.options import parse_options


def check(config: ConfigDict) -> None:
    """Raises UserError for sizes that do not fit each other and values that are unknown."""
    frame, mask = config.frame_size, config.mask.size
    if frame % mask or (frame // mask) & (frame // mask - 1):
        raise UserError(f"config.frame_size={frame} must be config.mask.size={mask} times a power of two")
    for name, side in (("mask", mask), ("refine", mask), ("fine", frame)):
        blocks = config[name].blocks
        if side % 2**blocks:
            raise UserError(f"config.{name}.blocks={blocks} halves a side of {side} too often; give at most {(side & -side).bit_length() - 1}")
    if config.mask.border not in ("zero", "same"):
        raise UserError(f"config.mask.border={config.mask.border} cannot be: give 'zero' or 'same'")
    if config.precision not in PRECISIONS:
        raise UserError(f"config.precision={config.precision} cannot be: give one of {', '.join(PRECISIONS)}")
    if config.perturb.strips - 1 > round(config.perturb.cut_high * mask) - round(config.perturb.cut_low * mask) + 1:
        raise UserError(f"config.perturb.strips={config.perturb.strips} are too many for masks of side {mask}")
    for scale in (*config.loss.scales, *config.loss.coarse_scales):
        if frame % scale:
            raise UserError(f"config.loss has a scale of {scale}, which does not divide config.frame_size={frame}")
    check_taps(config.loss.taps)
    parse_options({"threshold": str(config.perturb.threshold)}, config.perturb)
