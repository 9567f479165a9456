"""Which Perturbed Masks settings are valid, and which deviate from the paper?"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError
from maskanim_jax.losses.vgg import check_layers
from maskanim_jax.nn.types import PRECISIONS
from maskanim_jax.systems.deviations import TRAINING, Deviation, sentences
from maskanim_jax.systems.perturbed_masks.options import parse_options

STABLE = ("taichi", "voxceleb", "bair", "mgif")
"""Configs that have the variant `stable`."""


def check(config: ConfigDict) -> None:
    """Raises UserError for incompatible sizes and unknown values."""
    frame, mask = config.frame_size, config.mask.size
    if frame % mask or (frame // mask) & (frame // mask - 1):
        raise UserError(f"config.frame_size={frame} must be config.mask.size={mask} times a power of two")
    for name, side in (("mask", mask), ("refine", mask), ("fine", frame)):
        blocks = config[name].num_blocks
        if side % 2**blocks:
            raise UserError(
                f"config.{name}.num_blocks={blocks} halves a side of {side} too often; give at most {(side & -side).bit_length() - 1}"
            )
    for name in ("mask", "refine"):
        settings = config[name]
        for field in ("temperature", "temperature_end"):
            if not settings[field] > 0:
                raise UserError(f"config.{name}.{field}={settings[field]:g} must be above 0")
        if settings.temperature_steps < 0:
            raise UserError(f"config.{name}.temperature_steps={settings.temperature_steps} must be at least 0")
    if config.mask.border not in ("zero", "same"):
        raise UserError(f"config.mask.border={config.mask.border} must be 'zero' or 'same'")
    if config.precision not in PRECISIONS:
        raise UserError(f"config.precision={config.precision} must be one of {', '.join(PRECISIONS)}")
    if config.perturb.strips - 1 > round(config.perturb.cut_high * mask) - round(config.perturb.cut_low * mask) + 1:
        raise UserError(f"config.perturb.strips={config.perturb.strips} are too many for masks of side {mask}")
    for field in ("shape_scale", "shape_stretch"):
        if not config.perturb[field] >= 1:
            raise UserError(f"config.perturb.{field}={config.perturb[field]:g} must be at least 1")
    if not 0 <= config.perturb.whole_scale < 1:
        raise UserError(f"config.perturb.whole_scale={config.perturb.whole_scale:g} must be at least 0 and less than 1")
    if config.perturb.draws < 1:
        raise UserError(f"config.perturb.draws={config.perturb.draws} must be at least 1")
    if not config.perturb.shape_blur >= 0:
        raise UserError(f"config.perturb.shape_blur={config.perturb.shape_blur:g} must be at least 0")
    for scale in (*config.loss.pyramid_sizes, *config.loss.coarse_pyramid_sizes):
        if frame % scale:
            raise UserError(f"config.loss has a scale of {scale}, which does not divide config.frame_size={frame}")
    check_layers(config.loss.vgg_layers)
    parse_options({"threshold": str(config.perturb.threshold)}, config.perturb)


def shape_settings(config: ConfigDict) -> dict[str, Any]:
    """The settings that determine the tensors' shapes.

    The frame size itself does not, but its ratio to the mask size gives the coarse generator's up
    blocks.
    """
    ratio = {"frame_size / mask.size": config.frame_size // config.mask.size}
    sizes = {
        f"{name}.{field}": config[name][field]
        for name in ("mask", "refine", "fine")
        for field in ("width", "num_blocks", "max_width")
    }
    coarse = {f"coarse.{field}": config.coarse[field] for field in ("width", "residual_blocks")}
    return {**ratio, **sizes, **coarse, "mask.normalise_logits": config.mask.normalise_logits}


def advice(config: ConfigDict) -> str:
    """Advice on mask collapse as a clause; empty where the config
    already has the known remedies.
    """
    rate = config.optim.mask_lr_multiplier
    if rate <= 0.01 or (rate <= 0.1 and config.mask.temperature >= 0.3):
        return ""
    known = config.name if config.name in STABLE else "taichi"
    return f"; it does not recover, so restart with configs/{known}.py:stable, see docs/avoiding-mask-collapse.md"


_SIZES = "mask.width mask.num_blocks refine.width refine.num_blocks coarse.width coarse.residual_blocks fine.width fine.num_blocks"

DEVIATIONS = (
    Deviation(
        "frame_size mask.size",
        (256, 64),
        "frames are {c.frame_size} pixels and masks {c.mask.size}, not 256 and 64",
    ),
    Deviation(
        _SIZES,
        (32, 5, 64, 5, 256, 6, 64, 5),
        "networks are smaller or larger: m {c.mask.width} x {c.mask.num_blocks} blocks, r {c.refine.width} x {c.refine.num_blocks}, "
        "l {c.coarse.width} x {c.coarse.residual_blocks}, h {c.fine.width} x {c.fine.num_blocks}",
    ),
    Deviation(
        "mask.temperature",
        0.1,
        "m's temperature is {value:g}, not 0.1: a softer sigmoid, so that gradients do not vanish",
    ),
    Deviation("mask.temperature_steps", 0, "m's temperature goes to {c.mask.temperature_end:g} within {value} steps"),
    Deviation("refine.temperature", 0.1, "r's temperature is {value:g}, not 0.1"),
    Deviation(
        "refine.temperature_steps", 0, "r's temperature goes to {c.refine.temperature_end:g} within {value} steps"
    ),
    Deviation(
        "mask.normalise_logits",
        False,
        "m's logits are normalised over the batch and lowered by {c.mask.logit_offset}",
    ),
    Deviation(
        "mask.area_weight",
        0.0,
        "mask area above {c.mask.area_margin:g} of the frame is penalised in m's loss, with weight {value:g}",
    ),
    Deviation("data.driving_jitter_scale", 1.0, "the driver's own colour jitter A is {value:g} times as wide"),
    Deviation("data.driving_invert_prob", 0.0, "the driver's colours are inverted with probability {value:g}"),
    Deviation(
        "perturb.shape_scale perturb.shape_stretch perturb.shape_blur",
        (1.0, 1.0, 0.0),
        "P_train first changes the figure's shape: scaled by up to {c.perturb.shape_scale:g}, stretched by up to {c.perturb.shape_stretch:g}, "
        "blurred by up to {c.perturb.shape_blur:g} pixels and thresholded",
    ),
    Deviation("perturb.whole_scale", 0.25, "P_train scales the whole mask by up to {value:g}, not 0.25"),
    Deviation("perturb.test_scale", 0.75, "P_test scales masks by {value:g}, not 0.75"),
    Deviation("perturb.draws", 1, "r learns from {value} perturbations of each mask in a step"),
    Deviation("mask.border", "zero", "masks have no border of three zero pixels"),
    Deviation("optim.mask_lr_multiplier", 1.0, "m's learning rate is multiplied by {value:g}"),
    Deviation(
        "loss.coarse_pyramid_sizes",
        lambda c: tuple(c.loss.pyramid_sizes),
        "the coarse frame is compared at {value} only",
    ),
    *TRAINING,
)
"""What the paper and the released code have, sizes first."""


def paper_deviations(config: ConfigDict) -> list[str]:
    """The deviations from the paper and the released code, one sentence each; sizes first."""
    return sentences(config, DEVIATIONS)
