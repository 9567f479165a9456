"""Which FOMM settings are valid, and which deviate from its paper and released code?"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError, check_at_least
from maskanim_jax.losses.vgg import check_layers
from maskanim_jax.nn.types import PRECISIONS
from maskanim_jax.systems.deviations import TRAINING, Deviation, sentences


def check(config: ConfigDict) -> None:
    """Raises UserError for incompatible sizes and unknown values."""
    frame = config.frame_size
    for name in ("keypoints", "motion"):
        settings = config[name]
        side = round(frame * settings.scale)
        if side < 1 or frame % side or abs(side - frame * settings.scale) > 1e-6:
            raise UserError(
                f"config.{name}.scale={settings.scale:g} must be 1 over a whole number that divides config.frame_size={frame}"
            )
        if side % 2**settings.num_blocks:
            raise UserError(
                f"config.{name}.num_blocks={settings.num_blocks} halves a side of {side} too often; give at most {(side & -side).bit_length() - 1}"
            )
    if round(frame * config.keypoints.scale) < 8:
        raise UserError(
            f"config.keypoints.scale={config.keypoints.scale:g} leaves a side below 8, too small for heatmaps of a 7x7 conv"
        )
    if frame % 2**config.generator.down_blocks:
        raise UserError(
            f"config.generator.down_blocks={config.generator.down_blocks} halves a side of {frame} too often"
        )
    check_at_least("config.keypoints.num_keypoints", config.keypoints.num_keypoints)
    if config.discriminator.enabled:
        _check_discriminator(config)
    if config.precision not in PRECISIONS:
        raise UserError(f"config.precision={config.precision} must be one of {', '.join(PRECISIONS)}")
    if not 0 < config.data.resize_low <= config.data.resize_high:
        raise UserError(
            f"config.data.resize_low={config.data.resize_low:g} must be above 0 and not above resize_high={config.data.resize_high:g}"
        )
    for scale in config.loss.pyramid_sizes:
        if frame % scale:
            raise UserError(f"config.loss has a scale of {scale}, which does not divide config.frame_size={frame}")
    check_layers(config.loss.vgg_layers)


def _check_discriminator(config: ConfigDict) -> None:
    blocks, side = config.discriminator.num_blocks, config.frame_size
    for block in range(blocks):
        side = side - 3 if block == blocks - 1 else (side - 3) // 2
    if side < 1:
        raise UserError(
            f"config.discriminator.num_blocks={blocks} are too many for frames of {config.frame_size} pixels: give fewer"
        )


def shape_settings(config: ConfigDict) -> dict[str, Any]:
    """The settings that determine the tensors' shapes; the frame size does not."""
    fields = {
        "keypoints": ("num_keypoints", "width", "max_width", "num_blocks", "jacobian", "single_jacobian"),
        "motion": ("width", "max_width", "num_blocks", "occlusion"),
        "generator": ("width", "max_width", "down_blocks", "residual_blocks"),
        "discriminator": ("enabled",),
    }
    if config.discriminator.enabled:
        fields["discriminator"] += ("width", "max_width", "num_blocks", "spectral_norm", "keypoints")
    return {f"{name}.{field}": config[name][field] for name in fields for field in fields[name]}


_SIZES = (
    "keypoints.width keypoints.max_width keypoints.num_blocks motion.width motion.max_width motion.num_blocks "
    "generator.width generator.max_width generator.down_blocks generator.residual_blocks"
)

DEVIATIONS = (
    Deviation("frame_size", 256, "frames are {value} pixels, not 256"),
    Deviation("keypoints.num_keypoints", 10, "there are {value} keypoints, not 10"),
    Deviation(
        _SIZES,
        (32, 1024, 5, 64, 1024, 5, 64, 512, 2, 6),
        "networks are smaller or larger: keypoint detector {c.keypoints.width} x {c.keypoints.num_blocks} blocks, dense motion "
        "{c.motion.width} x {c.motion.num_blocks}, generator {c.generator.width} x {c.generator.down_blocks} down and "
        "{c.generator.residual_blocks} residual",
    ),
    Deviation(
        "discriminator.width discriminator.max_width discriminator.num_blocks",
        (32, 512, 4),
        "the discriminator is smaller or larger: {c.discriminator.width} x {c.discriminator.num_blocks} blocks",
        when=lambda c: c.discriminator.enabled,
    ),
    Deviation(
        "keypoints.scale motion.scale",
        (0.25, 0.25),
        "keypoints and motion are found at {c.keypoints.scale:g} and {c.motion.scale:g} of the frame's side, not at 1/4",
    ),
    Deviation("keypoints.temperature", 0.1, "the heatmaps' temperature is {value:g}, not 0.1"),
    Deviation("motion.variance", 0.01, "the variance of Eq. 6 is {value:g}, not 0.01"),
    Deviation(
        "loss.pyramid_sizes", (256, 128, 64, 32), "pictures are compared at sides of {value}, not at (256, 128, 64, 32)"
    ),
    Deviation(
        "loss.vgg_layers",
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        "the perceptual loss reads the layers {value}, not five",
    ),
    Deviation(
        "loss.equivariance_value",
        lambda c: c.loss.equivariance_value or 10.0,
        "there is no equivariance loss of keypoints (Eq. 11)",
    ),
    *TRAINING,
    Deviation("motion.occlusion", True, "ablation: no occlusion map (1 everywhere in Eq. 8)"),
    Deviation("keypoints.jacobian", True, "ablation: J_k is the identity in Eq. 4, the motion model of Monkey-Net"),
    Deviation(
        "loss.equivariance_jacobian",
        lambda c: c.loss.equivariance_jacobian or 10.0,
        "ablation: no equivariance loss of Jacobians (Eq. 12 and 13)",
        when=lambda c: c.keypoints.jacobian,
    ),
)
"""What the paper and the released code have, sizes first, ablations last."""


def paper_deviations(config: ConfigDict) -> list[str]:
    """The deviations from the paper and the released code, one sentence each."""
    return sentences(config, DEVIATIONS)
