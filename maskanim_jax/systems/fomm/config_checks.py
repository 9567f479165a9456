"""Which FOMM settings are valid, and which deviate from its paper and released code?"""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from maskanim_jax.errors import UserError, check_at_least
from maskanim_jax.losses.vgg import check_layers
from maskanim_jax.nn.types import PRECISIONS


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


def paper_deviations(config: ConfigDict) -> list[str]:
    """One sentence for every deviation from the paper and the released code; sizes first, ablations
    last.
    """
    c = config
    kp, motion, generator, critic, loss = c.keypoints, c.motion, c.generator, c.discriminator, c.loss
    sizes = (
        *(kp.width, kp.max_width, kp.num_blocks, motion.width, motion.max_width, motion.num_blocks),
        *(generator.width, generator.max_width, generator.down_blocks, generator.residual_blocks),
    )
    checks = [
        (c.frame_size != 256, f"frames are {c.frame_size} pixels, not 256"),
        (kp.num_keypoints != 10, f"there are {kp.num_keypoints} keypoints, not 10"),
        (
            sizes != (32, 1024, 5, 64, 1024, 5, 64, 512, 2, 6),
            f"networks are smaller or larger: keypoint detector {kp.width} x {kp.num_blocks} blocks, dense motion {motion.width} x "
            f"{motion.num_blocks}, generator {generator.width} x {generator.down_blocks} down and {generator.residual_blocks} residual",
        ),
        (
            critic.enabled and (critic.width, critic.max_width, critic.num_blocks) != (32, 512, 4),
            f"the discriminator is smaller or larger: {critic.width} x {critic.num_blocks} blocks",
        ),
        (
            (kp.scale, motion.scale) != (0.25, 0.25),
            f"keypoints and motion are found at {kp.scale:g} and {motion.scale:g} of the frame's side, not at 1/4",
        ),
        (kp.temperature != 0.1, f"the heatmaps' temperature is {kp.temperature:g}, not 0.1"),
        (motion.variance != 0.01, f"the variance of Eq. 6 is {motion.variance:g}, not 0.01"),
        (
            tuple(loss.pyramid_sizes) != (256, 128, 64, 32),
            f"pictures are compared at sides of {', '.join(map(str, loss.pyramid_sizes))}, not at 256, 128, 64, 32",
        ),
        (len(loss.vgg_layers) != 5, f"the perceptual loss reads {', '.join(loss.vgg_layers)}, not five layers"),
        (not loss.equivariance_value, "there is no equivariance loss of keypoints (Eq. 11)"),
        (bool(c.optim.ema), f"results are those of averaged weights, with decay {c.optim.ema:g}"),
        (bool(c.init_from), f"the networks start from {c.init_from}"),
        (loss.vgg != "imagenet", "the perceptual loss uses untrained features of VGG-19"),
        (c.optim.learning_rate != 2e-4, f"the learning rate is {c.optim.learning_rate:g}, not 2e-4"),
        (bool(c.optim.warmup_steps), f"the learning rate warms up over {c.optim.warmup_steps} steps"),
        (bool(c.optim.cosine_steps), f"the learning rate follows a cosine to zero at step {c.optim.cosine_steps}"),
        (not motion.occlusion, "ablation: no occlusion map (1 everywhere in Eq. 8)"),
        (not kp.jacobian, "ablation: J_k is the identity in Eq. 4, the motion model of Monkey-Net"),
        (
            bool(kp.jacobian) and not loss.equivariance_jacobian,
            "ablation: no equivariance loss of Jacobians (Eq. 12 and 13)",
        ),
    ]
    return [sentence for departs, sentence in checks if departs]
