"""Which Perturbed Masks settings are valid, and which deviate from the paper?"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError
from maskanim_jax.losses.vgg import check_layers
from maskanim_jax.nn.types import PRECISIONS
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


def _course(settings: ConfigDict) -> str:
    if not settings.temperature_steps:
        return f"is {settings.temperature:g}"
    return (
        f"goes from {settings.temperature:g} to {settings.temperature_end:g} within {settings.temperature_steps} steps"
    )


def advice(config: ConfigDict) -> str:
    """Advice on mask collapse as a clause; empty where the config already has the known remedies."""
    if config.mask.temperature >= 0.3 and config.optim.mask_lr_multiplier <= 0.1:
        return ""
    known = config.name if config.name in STABLE else "taichi"
    return f"; it does not recover, so restart with configs/{known}.py:stable, see docs/avoiding-mask-collapse.md"


def paper_deviations(config: ConfigDict) -> list[str]:
    """One sentence for every deviation from the paper and the released code; sizes first."""
    c = config
    checks = [
        (
            c.frame_size != 256 or c.mask.size != 64,
            f"frames are {c.frame_size} pixels and masks {c.mask.size}, not 256 and 64",
        ),
        (
            (
                c.mask.width,
                c.mask.num_blocks,
                c.refine.width,
                c.refine.num_blocks,
                c.coarse.width,
                c.coarse.residual_blocks,
                c.fine.width,
                c.fine.num_blocks,
            )
            != (32, 5, 64, 5, 256, 6, 64, 5),
            f"networks are smaller or larger: m {c.mask.width} x {c.mask.num_blocks} blocks, r {c.refine.width} x {c.refine.num_blocks}, "
            f"l {c.coarse.width} x {c.coarse.residual_blocks}, h {c.fine.width} x {c.fine.num_blocks}",
        ),
        *(
            (
                (c[name].temperature != 0.1 or bool(c[name].temperature_steps)),
                f"{letter}'s temperature {_course(c[name])}, not 0.1{why}",
            )
            for name, letter, why in (
                ("mask", "m", ": a softer sigmoid, so that gradients do not vanish"),
                ("refine", "r", ""),
            )
        ),
        (c.mask.normalise_logits, f"m's logits are normalised over the batch and lowered by {c.mask.logit_offset}"),
        (
            bool(c.mask.area_weight),
            f"mask area above {c.mask.area_margin:g} of the frame is penalised in m's loss, with weight {c.mask.area_weight:g}",
        ),
        (
            c.data.driving_jitter_scale != 1,
            f"the driver's own colour jitter A is {c.data.driving_jitter_scale:g} times as wide",
        ),
        (
            bool(c.data.driving_invert_prob),
            f"the driver's colours are inverted with probability {c.data.driving_invert_prob:g}",
        ),
        (c.mask.border != "zero", "masks have no border of three zero pixels"),
        (c.optim.learning_rate != 2e-4, f"the learning rate is {c.optim.learning_rate:g}, not 2e-4"),
        (c.optim.mask_lr_multiplier != 1, f"m's learning rate is multiplied by {c.optim.mask_lr_multiplier:g}"),
        (bool(c.optim.warmup_steps), f"the learning rate warms up over {c.optim.warmup_steps} steps"),
        (bool(c.optim.cosine_steps), f"the learning rate follows a cosine to zero at step {c.optim.cosine_steps}"),
        (
            tuple(c.loss.pyramid_sizes) != tuple(c.loss.coarse_pyramid_sizes),
            f"the coarse frame is compared at {tuple(c.loss.coarse_pyramid_sizes)} only",
        ),
        (bool(c.optim.ema), f"results are those of averaged weights, with decay {c.optim.ema:g}"),
        (bool(c.init_from), f"the networks start from {c.init_from}"),
        (c.loss.vgg != "imagenet", "the perceptual loss uses untrained features of VGG-19"),
    ]
    return [sentence for departs, sentence in checks if departs]
