"""First Order Motion Model at 256 x 256: the released sizes, the ablations of its paper, and every switch. One comment a field."""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import common, small
from maskanim_jax.errors import UserError


def get_config() -> ConfigDict:
    """What all released configs share (Siarohin et al., NeurIPS 2019, and their code)."""
    c = common.get_config()
    c.system = "fomm"
    c.name = "fomm"
    c.reference = "released"
    c.align_corners = (
        False  # grid sampling: corner-aligned, as the published checkpoints were trained, or as torch does today
    )

    c.data.resize_low = 1.0  # both frames of a pair are resized by a factor from U[low, high] ...
    c.data.resize_high = 1.0
    c.data.random_crop = False  # ... and cropped (or padded) at random to the frame's size

    c.keypoints = keypoints = ConfigDict()  # the keypoint detector
    keypoints.num_keypoints = 10
    keypoints.width = 32
    keypoints.max_width = 1024
    keypoints.num_blocks = 5
    keypoints.scale = 0.25  # it sees the frame so much smaller
    keypoints.temperature = 0.1  # of the heatmaps' softmax
    keypoints.jacobian = True  # False: the identity, Monkey-Net's motion model
    keypoints.single_jacobian = False  # one map for all keypoints

    c.motion = motion = ConfigDict()  # the dense motion network
    motion.width = 64
    motion.max_width = 1024
    motion.num_blocks = 5
    motion.scale = 0.25
    motion.variance = 0.01  # of the keypoints' Gaussians, Eq. 6
    motion.occlusion = True  # False: nothing is hidden, the occlusion map of Eq. 8 is 1

    c.generator = generator = ConfigDict()
    generator.width = 64
    generator.max_width = 512
    generator.down_blocks = 2
    generator.residual_blocks = 6

    c.discriminator = discriminator = ConfigDict()
    discriminator.enabled = False  # the adversarial losses, and the network
    discriminator.width = 32
    discriminator.max_width = 512
    discriminator.num_blocks = 4
    discriminator.spectral_norm = False
    discriminator.keypoints = False  # the driver's Gaussians are concatenated to its input
    discriminator.variance = 0.01

    c.equivariance = equivariance = ConfigDict()  # the random warp of Eq. 10 to 13
    equivariance.affine_sigma = 0.05
    equivariance.tps_sigma = 0.005
    equivariance.tps_points = 5  # a side of the grid of control points

    c.loss.pyramid_sizes = (256, 128, 64, 32)
    c.loss.vgg_layers = common.FIVE_LAYERS
    c.loss.equivariance_value = 10.0  # Eq. 11
    c.loss.equivariance_jacobian = 10.0  # Eq. 13
    c.loss.adversarial = 1.0  # least squares; counted when discriminator.enabled
    c.loss.feature_matching = 10.0
    c.optim.beta2 = 0.999

    c.animate.options.motion = "relative"  # or "absolute"
    c.animate.options.adapt_scale = False  # relative motion is scaled to the source's size
    return c


def _zeroth_order(c: ConfigDict) -> None:
    c.keypoints.jacobian = False
    c.loss.equivariance_jacobian = 0.0


def _pyramid(c: ConfigDict) -> None:
    _zeroth_order(c)
    c.motion.occlusion = False


def _baseline(c: ConfigDict) -> None:
    _pyramid(c)
    c.loss.pyramid_sizes = c.loss.pyramid_sizes[:1]


def _without_eq12(c: ConfigDict) -> None:
    c.loss.equivariance_jacobian = 0.0


VARIANTS: dict[str, Callable[[ConfigDict], None]] = {
    "full": lambda c: None,
    "baseline": _baseline,  # zeroth-order motion, no occlusion map, the highest resolution's loss alone
    "pyr": _pyramid,  # and the losses of all resolutions
    "pyr_o": _zeroth_order,  # and the occlusion map
    "no_eq12": _without_eq12,  # Jacobians without their equivariance
    "identity_jacobian": _zeroth_order,  # Monkey-Net's motion model
}
"""Argument of a config to what it changes: Table 1 of the paper, whose rows build on each other."""


def vary(c: ConfigDict, variant: str, *others: str) -> ConfigDict:
    """The config as an ablation; raises UserError for a name that is none (`others`: names that the config itself takes)."""
    if variant not in VARIANTS:
        raise UserError(f"a FOMM config's argument is one of {', '.join([*VARIANTS, *others])}, not '{variant}'")
    VARIANTS[variant](c)
    if variant != "full":
        c.name = f"{c.name}-{variant}"
    return c


def adversarial(c: ConfigDict, *, keypoints: bool = False, spectral_norm: bool = False) -> ConfigDict:
    """Switches the discriminator on."""
    c.discriminator.enabled = True
    c.discriminator.keypoints = keypoints
    c.discriminator.spectral_norm = spectral_norm
    return c


def reduced(c: ConfigDict) -> ConfigDict:
    """64-pixel frames, heatmaps and motion of 32, about 1.3 M parameters: the size of Perturbed Masks' small recipe."""
    small.two_cores(c)
    c.loss.vgg_layers = ("relu1_1", "relu2_1", "relu3_1")  # as there
    c.keypoints.scale = c.motion.scale = 0.5
    c.keypoints.width, c.keypoints.num_blocks, c.keypoints.max_width = 16, 3, 64
    c.motion.width, c.motion.num_blocks, c.motion.max_width = 16, 4, 128
    c.generator.width, c.generator.max_width, c.generator.down_blocks = 32, 64, 1
    return c
