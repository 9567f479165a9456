"""Perturbed Masks at 256 x 256: the paper's settings, and every switch that its other configs turn. One comment a field."""

from __future__ import annotations

from ml_collections import ConfigDict

from configs import common
from maskanim_jax.errors import UserError

READINGS = ("paper", "released", "stable")
ADDED = tuple(f"{network}.temperature_{field}" for network in ("mask", "refine") for field in ("end", "steps"))
"""Fields that configs saved by older versions lack; the default does what was done then."""


def get_config() -> ConfigDict:
    """The paper's reading (Shalev and Wolf, section 3 and 3.1). Values that the paper leaves open are the released code's."""
    c = common.get_config()
    c.system = "perturbed_masks"

    c.data.driving_jitter_scale = 1.0  # the driver's own draw of A has these ranges times this; 1: the paper's
    c.data.driving_invert_prob = (
        0.0  # departs from the paper: probability that the driver alone is turned into its negative
    )

    c.mask = mask = ConfigDict()  # network m
    mask.size = 64  # masks and everything at low resolution
    mask.width = 32
    mask.num_blocks = 5
    mask.max_width = 1024
    mask.temperature = 0.1  # the logits are divided by it
    mask.temperature_end = 0.1  # departs from the paper: the temperature falls (or rises) to this one ...
    mask.temperature_steps = 0  # ... within so many steps, by the same factor each step; 0: it stays as it is
    mask.normalise_logits = False  # departs from the paper: batch norm without affine on the logits
    mask.logit_offset = 0.0  # taken off the normalised logits: a larger one means a smaller mask
    mask.area_weight = (
        0.0  # departs from the paper: weight of a loss on m, the part of each mask's mean above mask.area_margin
    )
    mask.area_margin = 0.25  # share of the picture that a mask may cover without cost
    mask.border = "zero"  # 7x7 conv without padding, then 3 zeros around; "same": padded conv, no border

    c.refine = refine = ConfigDict()  # network r
    refine.width = 64
    refine.num_blocks = 5
    refine.max_width = 1024
    refine.temperature = 0.1
    refine.temperature_end = 0.1  # as mask.temperature_end
    refine.temperature_steps = 0
    refine.start_epoch = 1  # counted from 0: r starts after the first epoch

    c.coarse = coarse = ConfigDict()  # network l; its up blocks are log2(frame_size / mask.size)
    coarse.width = 256
    coarse.residual_blocks = 6

    c.fine = fine = ConfigDict()  # network h
    fine.width = 64
    fine.num_blocks = 5
    fine.max_width = 1024

    c.perturb = perturb = ConfigDict()
    perturb.strips = 6  # P_train cuts the mask into so many
    perturb.cut_low = 15 / 64  # cuts are drawn from this share of the mask's side
    perturb.cut_high = 45 / 64
    perturb.scale = 0.25  # strips and the whole are scaled by U[1 - x, 1 + x]
    perturb.threshold = "median"  # rho of P_train: of each mask, or a number from 0 to 255, as text
    perturb.noise = 20.0  # lambda of the Poisson noise, in 255ths
    perturb.test_threshold = "median"  # rho of P_test, the same way
    perturb.test_scale = 0.75  # resize of P_test

    c.loss.coarse_pyramid_sizes = (256, 128, 64)  # as loss.pyramid_sizes, for the coarse frame
    c.loss.mask = 100.0
    c.optim.mask_lr_multiplier = 1.0  # m's learning rate as a share of the others'
    return c


def keep_masks_alive(c: ConfigDict) -> None:
    """What departs from the paper so that masks do not collapse in the first steps: docs/avoiding-mask-collapse.md has the measurements."""
    c.mask.temperature = 0.3
    c.refine.temperature = 0.3
    c.mask.area_weight = 20.0
    c.optim.mask_lr_multiplier = 0.1


def start(reading: str) -> ConfigDict:
    """The config above in the "paper" or the "released" reading, or the paper's with what keeps masks alive ("stable").

    Raises UserError for another name.
    """
    c = get_config()
    if reading not in READINGS:
        raise UserError(f"a config's argument is {' or '.join(READINGS)}, not '{reading}'")
    if reading == "stable":
        keep_masks_alive(c)
    if reading == "released":
        c.reference = reading
        c.loss.pyramid_sizes = c.loss.coarse_pyramid_sizes = (256, 128, 64, 32)
        c.optim.beta2 = 0.999
    return c
