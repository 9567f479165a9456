"""Which config fields and flags were renamed?

Old files are still read; the command line takes the new names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maskanim_jax.errors import UserError

FIELDS = {
    "reading": "reference",
    "cpu_devices": "num_cpu_devices",
    "corners": "align_corners",
    "data.own_jitter": "data.driving_jitter_scale",
    "data.own_negative": "data.driving_invert_prob",
    "data.mirror": "data.flip_prob",
    "data.time_flip": "data.swap_prob",
    "data.repeats": "data.num_repeats",
    "data.skip_bad": "data.max_bad_fraction",
    "data.threads": "data.num_threads",
    "optim.accumulate": "optim.grad_accum_steps",
    "optim.mask_rate": "optim.mask_lr_multiplier",
    "train.keep": "train.max_to_keep",
    "train.picture_every": "train.image_every",
    "train.eval_clips": "train.num_eval_clips",
    "loss.scales": "loss.pyramid_sizes",
    "loss.coarse_scales": "loss.coarse_pyramid_sizes",
    "loss.taps": "loss.vgg_layers",
    "mask.area": "mask.area_weight",
    "mask.area_free": "mask.area_margin",
    "mask.blocks": "mask.num_blocks",
    "refine.blocks": "refine.num_blocks",
    "fine.blocks": "fine.num_blocks",
    "keypoints.blocks": "keypoints.num_blocks",
    "keypoints.count": "keypoints.num_keypoints",
    "motion.blocks": "motion.num_blocks",
    "discriminator.blocks": "discriminator.num_blocks",
}
"""New path of a config field, by old path."""

FLAGS = {
    "accept_changes": "allow_config_change",
    "from_step": "restore_step",
    "strip": "save_intermediates",
    "best_frame": "find_best_frame",
}
"""New name of a flag, by old name."""


FIGURES = {"l1_repeat_source": "l1_copy_source"}
"""New key in reconstruction.json, by old key."""


def upgrade_figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The content of reconstruction.json with today's keys, both overall and per clip."""
    upgraded = {FIGURES.get(key, key): value for key, value in figures.items()}
    clips = upgraded.get("clips")
    if isinstance(clips, list):
        upgraded["clips"] = [upgrade_figures(clip) if isinstance(clip, Mapping) else clip for clip in clips]
    return upgraded


def upgrade_config(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A saved config with today's field names; fields that already have them are kept."""
    upgraded = {key: dict(value) if isinstance(value, Mapping) else value for key, value in saved.items()}
    for old, new in FIELDS.items():
        section, _, name = old.rpartition(".")
        holder = upgraded.get(section) if section else upgraded
        if isinstance(holder, dict) and name in holder:
            value = holder.pop(name)
            holder.setdefault(new.rpartition(".")[2], value)
    return upgraded


def refuse_old_names(argv: Sequence[str]) -> None:
    """Raises UserError with the new name when the command line has an old flag or config field."""
    for argument in argv:
        if not argument.startswith("-"):
            continue
        name = argument.lstrip("-").partition("=")[0]
        new = FLAGS.get(name)
        if name.startswith("config."):
            field = FIELDS.get(name.removeprefix("config."))
            new = f"config.{field}" if field else None
        if new:
            raise UserError(f"--{name} was renamed: give --{new}")
