"""Which sizes can a CPU with two cores train?

Settings at 64 pixels, shared by puppets, demo, mgif and voxceleb.
"""

from __future__ import annotations

from ml_collections import ConfigDict


def cpu_scale(c: ConfigDict) -> ConfigDict:
    """Settings that the small runs of all systems share: 64-pixel frames in batches of 4,
    loss sizes, learning rate.
    """
    c.frame_size = 64
    c.batch_size = 4
    c.num_cpu_devices = 0  # 2 without compiled convs, where XLA runs narrow convs on one core each: 1.65 times as fast
    c.loss.pyramid_sizes = (64, 32)
    c.optim.learning_rate = 1e-3
    c.optim.decay_epochs = ()
    return c


def real_data(c: ConfigDict, name: str, shards: str) -> ConfigDict:
    """Data, steps and time limits of a run on real clips, for any system."""
    c.name = name
    c.data.shards = shards
    c.data.sampling = "clip"
    c.optim.epochs = 1000
    c.optim.max_steps = c.optim.cosine_steps = 5000
    c.optim.ema = 0.999
    c.optim.max_minutes = 110.0
    c.train.checkpoint_every = 500
    c.train.image_every = 500
    return c


def small(c: ConfigDict) -> ConfigDict:
    """Perturbed Masks with 32-pixel masks, about 1.3 M parameters, and changes that
    prevent the collapse of m.
    """
    cpu_scale(c)
    c.mask.size = 32
    c.mask.width, c.mask.num_blocks, c.mask.max_width = 16, 3, 64
    c.refine.width, c.refine.num_blocks, c.refine.max_width = 16, 3, 64
    c.coarse.width = 64
    c.fine.width, c.fine.num_blocks, c.fine.max_width = 16, 4, 128
    c.loss.coarse_pyramid_sizes = (32,)

    c.mask.temperature = 0.3
    c.refine.temperature = 0.3
    c.mask.area_weight = 20.0
    c.data.driving_jitter_scale = 5.0
    c.data.driving_invert_prob = 0.5
    c.optim.mask_lr_multiplier = 0.1
    return c


def from_puppets(c: ConfigDict) -> ConfigDict:
    """Starts a run of Perturbed Masks on real clips from the bundled puppets: their m shows
    figures on any background, pale ones too; measured in docs/avoiding-mask-collapse.md.
    """
    c.init_from = "puppets"
    c.init_skip = ("coarse/last", "coarse/up1", "refine")  # larger in the bundled run
    wide_generators(c)
    c.mask.border = "same"
    c.refine.start_epoch = 0  # m is trained already
    return c


def wide_generators(c: ConfigDict) -> None:
    """l and h of the bundled puppets: 1.76 M parameters instead of 1.07; measured in
    docs/results.md.
    """
    c.coarse.width = 80
    c.fine.width = 32


def wide_perturbations(c: ConfigDict) -> None:
    """For identities of different body shapes: P_train that changes them, and an r that can follow;
    measured in docs/results.md.
    """
    c.perturb.shape_scale = 1.7
    c.perturb.shape_stretch = 1.28
    c.perturb.shape_blur = 1.2
    c.perturb.whole_scale = 0.0  # it moves figures: r can't tell by how much, and omits thin limbs
    c.perturb.test_scale = 1.0  # the same for P_test
    c.perturb.draws = 4
    c.refine.width, c.refine.max_width = 32, 256
    c.refine.start_epoch = 0  # m is trained already
