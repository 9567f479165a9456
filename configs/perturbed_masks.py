"""What are the settings of Perturbed Masks?

The paper's at 256 x 256, and every switch. Each field has a comment.
"""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common
from maskanim_jax.errors import UserError

VARIANTS = ("paper", "released", "stable")
ADDED = (
    *(f"{network}.temperature_{field}" for network in ("mask", "refine") for field in ("end", "steps")),
    *(f"perturb.{field}" for field in ("shape_scale", "shape_stretch", "shape_blur", "draws", "whole_scale")),
)
"""Fields that configs saved by older versions lack; their defaults keep the old behaviour."""
SPLIT = {"perturb.whole_scale": "perturb.scale"}
"""Maps such a field to the one that older versions used for both; its value is taken over."""


def get_config() -> ConfigDict:
    """The paper's settings (Shalev and Wolf, sections 3 and 3.1); where it gives none,
    those of the released code.
    """
    c = common.get_config()
    c.system = "perturbed_masks"

    c.data.driving_jitter_scale = 1.0  # scales the ranges of the driver's own draw of A; 1: as in the paper
    c.data.driving_invert_prob = 0.0  # deviates from the paper: probability of inverting the colours of the driver only

    c.mask = mask = ConfigDict()  # network m
    mask.size = 64  # side of the masks and of everything at low resolution
    mask.width = 32
    mask.num_blocks = 5
    mask.max_width = 1024
    mask.temperature = 0.1  # the logits are divided by it
    mask.temperature_end = 0.1  # deviates from the paper: the temperature changes to this value ...
    mask.temperature_steps = 0  # ... within this many steps, by a constant factor per step; 0: constant temperature
    mask.normalise_logits = False  # deviates from the paper: batch norm without affine on the logits
    mask.logit_offset = 0.0  # subtracted from the normalised logits: larger means smaller masks
    mask.area_weight = 0.0  # deviates from the paper: weight of m's loss on mask means above mask.area_margin
    mask.area_margin = 0.25  # share of the image that a mask may cover without penalty
    mask.border = "zero"  # 7x7 conv without padding, then a border of 3 zeros; "same": padded conv, no border

    c.refine = refine = ConfigDict()  # network r
    refine.width = 64
    refine.num_blocks = 5
    refine.max_width = 1024
    refine.temperature = 0.1
    refine.temperature_end = 0.1  # see mask.temperature_end
    refine.temperature_steps = 0
    refine.start_epoch = 1  # counted from 0: r trains after the first epoch

    c.coarse = coarse = ConfigDict()  # network l; its up blocks are log2(frame_size / mask.size)
    coarse.width = 256
    coarse.residual_blocks = 6

    c.fine = fine = ConfigDict()  # network h
    fine.width = 64
    fine.num_blocks = 5
    fine.max_width = 1024

    c.perturb = perturb = ConfigDict()
    perturb.strips = 6  # number of strips that P_train cuts the mask into
    perturb.cut_low = 15 / 64  # cuts are drawn between these shares of the mask's side
    perturb.cut_high = 45 / 64
    perturb.scale = 0.25  # strips are scaled by U[1 - x, 1 + x]
    perturb.whole_scale = 0.25  # the whole mask is scaled by U[1 - x, 1 + x] about its centre; 0: it stays in its place
    perturb.threshold = "median"  # rho of P_train: each mask's median, or a number from 0 to 255, as a string
    perturb.noise = 20.0  # lambda of the Poisson noise, in 255ths
    perturb.shape_scale = (
        1.0  # deviates from the paper: P_train first scales the figure by up to this factor, about its foot
    )
    perturb.shape_stretch = 1.0  # deviates from the paper: ... and each axis by up to this factor more
    perturb.shape_blur = (
        0.0  # deviates from the paper: ... and thickens or thins it, with a blur of up to this many pixels
    )
    perturb.draws = 1  # deviates from the paper: r learns from this many perturbations of each mask in a step
    perturb.test_threshold = "median"  # rho of P_test, like rho of P_train
    perturb.test_scale = 0.75  # resize of P_test

    c.loss.coarse_pyramid_sizes = (256, 128, 64)  # like loss.pyramid_sizes, for the coarse frame
    c.loss.mask = 100.0
    c.optim.mask_lr_multiplier = 1.0  # m's learning rate as a multiple of the others'
    return c


def prevent_mask_collapse(c: ConfigDict) -> None:
    """The one deviation from the paper that kept masks alive at 256 x 256: m learns so slowly
    that l and h can use its masks before they are gone; see docs/avoiding-mask-collapse.md.
    """
    c.optim.mask_lr_multiplier = 0.01


def for_variant(variant: str) -> ConfigDict:
    """The config above as in the "paper", as "released", or the paper's with a change
    against collapse ("stable").

    Raises UserError for another name.
    """
    c = get_config()
    if variant not in VARIANTS:
        raise UserError(f"a config's argument is {' or '.join(VARIANTS)}, not '{variant}'")
    if variant == "stable":
        prevent_mask_collapse(c)
    if variant == "released":
        c.reference = variant
        c.loss.pyramid_sizes = c.loss.coarse_pyramid_sizes = (256, 128, 64, 32)
        c.optim.beta2 = 0.999
    return c
