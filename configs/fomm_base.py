"""What are the settings of the First Order Motion Model? The released sizes at 256 x 256,
ablations, every switch.

Each field has a comment.
"""

from __future__ import annotations

from collections.abc import Callable

from ml_collections import ConfigDict

from configs import common
from configs.small import cpu_scale
from maskanim_jax.errors import UserError


def get_config() -> ConfigDict:
    """The settings that all released configs share (Siarohin et al.,
    NeurIPS 2019, and their code).
    """
    c = common.get_config()
    c.system = "fomm"
    c.name = "fomm"
    c.reference = "released"
    c.align_corners = (
        False  # of grid sampling; True: as in the published checkpoints' training; False: PyTorch's default today
    )

    c.data.resize_low = 1.0  # both frames of a pair are resized by a factor from U[low, high] ...
    c.data.resize_high = 1.0
    c.data.random_crop = False  # ... and cropped (or padded) at random to the frame's size

    c.keypoints = keypoints = ConfigDict()  # the keypoint detector
    keypoints.num_keypoints = 10
    keypoints.width = 32
    keypoints.max_width = 1024
    keypoints.num_blocks = 5
    keypoints.scale = 0.25  # its input is the frame resized by this factor
    keypoints.temperature = 0.1  # of the heatmaps' softmax
    keypoints.jacobian = True  # False: the identity, Monkey-Net's motion model
    keypoints.single_jacobian = False  # one Jacobian map for all keypoints

    c.motion = motion = ConfigDict()  # the dense motion network
    motion.width = 64
    motion.max_width = 1024
    motion.num_blocks = 5
    motion.scale = 0.25
    motion.variance = 0.01  # of the keypoints' Gaussians, Eq. 6
    motion.occlusion = True  # False: no occlusion, the map of Eq. 8 is 1

    c.generator = generator = ConfigDict()
    generator.width = 64
    generator.max_width = 512
    generator.down_blocks = 2
    generator.residual_blocks = 6

    c.discriminator = discriminator = ConfigDict()
    discriminator.enabled = False  # enables the network and the adversarial losses
    discriminator.width = 32
    discriminator.max_width = 512
    discriminator.num_blocks = 4
    discriminator.spectral_norm = False
    discriminator.keypoints = False  # concatenate the driving keypoints' Gaussians to its input
    discriminator.variance = 0.01

    c.equivariance = equivariance = ConfigDict()  # the random warp of Eq. 10 to 13
    equivariance.affine_sigma = 0.05
    equivariance.tps_sigma = 0.005
    equivariance.tps_points = 5  # control points per side of the grid

    c.loss.pyramid_sizes = (256, 128, 64, 32)
    c.loss.vgg_layers = common.FIVE_LAYERS
    c.loss.equivariance_value = 10.0  # Eq. 11
    c.loss.equivariance_jacobian = 10.0  # Eq. 13
    c.loss.adversarial = 1.0  # least squares; used when discriminator.enabled
    c.loss.feature_matching = 10.0
    c.optim.beta2 = 0.999

    c.animate.options.motion = "relative"  # or "absolute"
    c.animate.options.adapt_scale = False  # scale relative motion to the source's size
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
    "baseline": _baseline,  # zeroth-order motion, no occlusion map, loss at the highest resolution only
    "pyr": _pyramid,  # plus the losses at all resolutions
    "pyr_o": _zeroth_order,  # plus the occlusion map
    "no_eq12": _without_eq12,  # Jacobians without the equivariance loss
    "identity_jacobian": _zeroth_order,  # Monkey-Net's motion model
}
"""Maps a config's argument to what it changes: the rows of Table 1 of the paper,
which build on each other.
"""


def apply_variant(c: ConfigDict, variant: str, *others: str) -> ConfigDict:
    """Turns the config into an ablation; raises UserError for an unknown name.

    `others` are names that the config itself accepts, for the message.
    """
    if variant not in VARIANTS:
        raise UserError(f"a FOMM config's argument is one of {', '.join([*VARIANTS, *others])}, not '{variant}'")
    VARIANTS[variant](c)
    if variant != "full":
        c.name = f"{c.name}-{variant}"
    return c


def adversarial(c: ConfigDict, *, keypoints: bool = False, spectral_norm: bool = False) -> ConfigDict:
    """Enables the discriminator."""
    c.discriminator.enabled = True
    c.discriminator.keypoints = keypoints
    c.discriminator.spectral_norm = spectral_norm
    return c


def small(c: ConfigDict) -> ConfigDict:
    """64-pixel frames, heatmaps and motion at 32, about 1.3 M parameters, as
    Perturbed Masks' small config.
    """
    cpu_scale(c)
    c.loss.vgg_layers = ("relu1_1", "relu2_1", "relu3_1")  # as in Perturbed Masks' small config
    c.keypoints.scale = c.motion.scale = 0.5
    c.keypoints.width, c.keypoints.num_blocks, c.keypoints.max_width = 16, 3, 64
    c.motion.width, c.motion.num_blocks, c.motion.max_width = 16, 4, 128
    c.generator.width, c.generator.max_width, c.generator.down_blocks = 32, 64, 1
    return c


def from_puppets(c: ConfigDict) -> ConfigDict:
    """Starts a small run on real clips from the bundled puppets of FOMM, with their rate; 2.0 M
    parameters, as Perturbed Masks has there.
    """
    c.init_from = "puppets-fomm"
    c.init_grow = ("generator",)
    c.generator.width, c.generator.max_width = 48, 96
    c.optim.learning_rate = 5e-4
    c.init_skip = ("generator/down1", "generator/up0", "generator/up1")  # the bundled frames are larger by one block
    return c
