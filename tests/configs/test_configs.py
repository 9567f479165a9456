"""Do the configs say what the paper and the released code say?"""

from pathlib import Path

import jax
import pytest

from configs import (
    bair,
    common,
    demo,
    fomm_bair,
    fomm_base,
    fomm_demo,
    fomm_fashion,
    fomm_mgif,
    fomm_nemo,
    fomm_puppets,
    fomm_taichi,
    fomm_taichi_adv,
    fomm_voxceleb,
    fomm_voxceleb_adv,
    mgif,
    own_clips,
    perturbed_masks,
    puppets,
    taichi,
    voxceleb,
)
from maskanim_jax.checkpoints.loading import saved_config
from maskanim_jax.errors import UserError
from maskanim_jax.systems import build
from maskanim_jax.training.warm_start import read_initial
from maskanim_jax.workdir.config import flat_config
from maskanim_jax.workdir.config_files import load_config

EVERY = [taichi, voxceleb, bair, mgif, puppets]
FOMM = [
    *(fomm_taichi, fomm_taichi_adv, fomm_voxceleb, fomm_voxceleb_adv, fomm_bair),
    *(fomm_mgif, fomm_fashion, fomm_nemo, fomm_demo, fomm_puppets),
]


@pytest.mark.parametrize("module", EVERY, ids=lambda m: m.__name__)
@pytest.mark.parametrize("reading", ["paper", "released"])
def test_every_config_builds_its_system(module, reading):
    config = module.get_config(reading)
    assert config.reference == reading
    assert build(config).frame_size == config.frame_size


@pytest.mark.parametrize(
    ("module", "start"),
    [*((demo, start) for start in demo.STARTS), (fomm_demo, fomm_demo.BUNDLED), (fomm_demo, "scratch")],
)
def test_the_demos_start_from_the_bundled_checkpoints_or_from_scratch(module, start):
    config = module.get_config(start)
    assert config.init_from == ("" if start == "scratch" else start)
    assert config.data.puppets.seed != puppets.get_config().data.puppets.seed
    assert build(config).frame_size == config.frame_size


def test_the_demo_refuses_another_start():
    with pytest.raises(UserError, match="puppets or scratch, not 'paper'"):
        demo.get_config("paper")


@pytest.mark.parametrize("module", [puppets, fomm_puppets], ids=lambda m: m.__name__)
def test_the_long_runs_can_be_prolonged(module):
    config = module.get_config("long")
    assert (config.optim.cosine_steps, config.optim.max_steps) == (0, 100_000)
    assert config.optim.ema > 0
    assert build(config).frame_size == 64


@pytest.mark.parametrize("module", [puppets, fomm_puppets], ids=lambda m: m.__name__)
def test_at_128_masks_and_motion_are_a_quarter_of_the_frame_as_in_the_papers(module):
    config, at_64 = module.get_config("128"), module.get_config("long")
    assert build(config).frame_size == 128
    assert (config.optim.max_steps, config.optim.ema) == (at_64.optim.max_steps, at_64.optim.ema)
    assert config.data.shards != at_64.data.shards
    if module is puppets:
        assert config.mask.size == at_64.mask.size == 128 // 4
    else:
        assert config.keypoints.scale == config.motion.scale == 0.25


@pytest.mark.parametrize("start", own_clips.STARTS)
def test_your_own_clips_start_from_a_bundled_checkpoint_whose_networks_fit(start):
    config, bundled = own_clips.get_config(start), saved_config(Path(start))
    assert config.init_from == start
    assert build(config).shape_settings() == build(bundled).shape_settings()
    assert config.frame_size == bundled.frame_size
    assert not any(config.data.puppets[split] for split in ("train_identities", "test_identities"))
    with pytest.raises(UserError, match="puppets or puppets-fomm, not 'mine'"):
        own_clips.get_config("mine")


def test_the_papers_reading_of_taichi():
    c = taichi.get_config()
    assert (c.frame_size, c.mask.size, c.batch_size, c.data.num_repeats) == (256, 64, 16, 150)
    assert (tuple(c.loss.pyramid_sizes), tuple(c.loss.vgg_layers)) == (
        (256, 128, 64),
        ("relu1_1", "relu2_1", "relu3_1"),
    )
    assert (c.loss.perceptual, c.loss.mask, c.perturb.noise, c.perturb.strips) == (10, 100, 20, 6)
    assert (c.perturb.threshold, c.perturb.test_threshold, c.perturb.test_scale) == ("median", "median", 0.75)
    assert build(c).paper_deviations() == []


@pytest.mark.parametrize(
    ("module", "batch", "taps", "threshold"), [(taichi, 20, 5, "60"), (bair, 18, 5, "60"), (voxceleb, 16, 3, "100")]
)
def test_the_released_readings(module, batch, taps, threshold):
    c = module.get_config("released")
    assert (c.batch_size, len(c.loss.vgg_layers), c.perturb.threshold, c.optim.beta2) == (batch, taps, threshold, 0.999)
    assert tuple(c.loss.pyramid_sizes) == (256, 128, 64, 32)
    assert build(c).paper_deviations() == []


def test_an_epoch_is_the_papers():
    assert (voxceleb.get_config().data.num_repeats, bair.get_config().data.sampling) == (75, "clip")


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_a_small_or_large_model_is_a_config(size):
    c = perturbed_masks.get_config()
    c.frame_size, c.mask.size = size, size // 4
    c.mask.num_blocks = c.refine.num_blocks = 4
    c.loss.pyramid_sizes = c.loss.coarse_pyramid_sizes = (size, size // 2)
    assert build(c).frame_size == size


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("frame_size", 250, "power of two"),
        ("mask.num_blocks", 9, "too often"),
        ("mask.border", "none", "'zero' or 'same'"),
        ("precision", "float64", "one of float32"),
        ("loss.vgg_layers", ("relu9_1",), "relu1_1 to relu5_4"),
        ("loss.pyramid_sizes", (100,), "does not divide"),
        ("perturb.threshold", "half", "'median' or a number"),
        ("perturb.strips", 40, "too many"),
        ("perturb.draws", 0, "at least 1"),
        ("perturb.shape_scale", 0.9, "at least 1"),
        ("perturb.shape_stretch", 0.0, "at least 1"),
        ("perturb.shape_blur", -1.0, "at least 0"),
        ("perturb.whole_scale", -0.1, "at least 0 and less than 1"),
        ("perturb.whole_scale", 1.0, "at least 0 and less than 1"),
        ("system", "magic", "the systems are"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(field, value, sentence):
    c = perturbed_masks.get_config()
    c.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=sentence):
        build(c)


def test_an_unknown_reading_is_one_sentence():
    with pytest.raises(UserError, match="paper or released"):
        taichi.get_config("draft")


# -- FOMM ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", FOMM, ids=lambda m: m.__name__)
def test_every_config_of_fomm_builds_its_system(module):
    config = module.get_config()
    system = build(config)
    assert (system.name, system.frame_size) == ("fomm", config.frame_size)


@pytest.mark.parametrize(
    ("module", "epochs", "milestones", "repeats", "batch", "adversarial", "keypoints", "spectral"),
    [
        (fomm_taichi, 100, (60, 90), 150, 30, False, False, False),
        (fomm_taichi_adv, 150, (), 150, 27, True, True, False),
        (fomm_voxceleb, 100, (60, 90), 75, 40, False, False, False),
        (fomm_voxceleb_adv, 150, (), 75, 36, True, True, False),
        (fomm_bair, 20, (12, 18), 1, 36, True, False, True),
        (fomm_nemo, 100, (60, 90), 8, 36, True, False, True),
        (fomm_mgif, 100, (60, 90), 25, 36, True, False, True),
        (fomm_fashion, 100, (60, 90), 50, 27, True, False, False),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_fomms_released_settings(module, epochs, milestones, repeats, batch, adversarial, keypoints, spectral):
    c = module.get_config()
    assert (c.optim.epochs, tuple(c.optim.decay_epochs), c.batch_size) == (epochs, milestones, batch)
    assert (1 if c.data.sampling == "clip" else c.data.num_repeats) == repeats
    critic = c.discriminator
    assert (critic.enabled, critic.keypoints, critic.spectral_norm) == (adversarial, keypoints, spectral)
    assert (c.optim.learning_rate, c.optim.beta1, c.optim.beta2) == (2e-4, 0.5, 0.999)
    assert (tuple(c.loss.pyramid_sizes), len(c.loss.vgg_layers), c.align_corners) == ((256, 128, 64, 32), 5, False)
    assert build(c).paper_deviations() == []


def test_moving_gifs_have_one_jacobian_and_another_augmentation():
    c = fomm_mgif.get_config()
    assert c.keypoints.single_jacobian
    assert (c.data.hue, c.data.brightness, c.data.contrast, c.data.saturation) == (0.5, 0, 0, 0)
    assert (c.data.resize_low, c.data.resize_high, c.data.random_crop) == (0.9, 1.1, True)


@pytest.mark.parametrize(
    ("variant", "scales", "occlusion", "jacobian", "eq12"),
    [
        ("baseline", 1, False, False, 0),
        ("pyr", 4, False, False, 0),
        ("pyr_o", 4, True, False, 0),
        ("identity_jacobian", 4, True, False, 0),
        ("no_eq12", 4, True, True, 0),
        ("full", 4, True, True, 10),
    ],
)
def test_the_ablations_of_fomms_table_1(variant, scales, occlusion, jacobian, eq12):
    c = fomm_taichi.get_config(variant)
    assert (len(c.loss.pyramid_sizes), c.motion.occlusion, c.keypoints.jacobian) == (scales, occlusion, jacobian)
    assert (c.loss.equivariance_value, c.loss.equivariance_jacobian) == (10, eq12)
    assert c.loss.pyramid_sizes[0] == 256
    build(c)


def test_an_unknown_variant_is_one_sentence():
    with pytest.raises(UserError, match="full, baseline, pyr, pyr_o, no_eq12, identity_jacobian, not 'pyramid'"):
        fomm_taichi.get_config("pyramid")
    with pytest.raises(UserError, match="small, not 'tiny'"):
        fomm_mgif.get_config("tiny")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (fomm_puppets.get_config(), puppets.get_config()),
        (fomm_mgif.get_config("small"), mgif.get_config("small")),
        (fomm_demo.get_config("scratch"), demo.get_config("scratch")),
    ],
    ids=["puppets", "mgif", "demo"],
)
def test_both_systems_train_on_the_same_pairs_for_the_same_steps_with_nets_of_one_size(ours, theirs):
    one, other = flat_config(ours.to_dict()), flat_config(theirs.to_dict())
    for key in one.keys() & other.keys():
        shared = key.startswith(
            ("data.", "train.", "seed", "frame_size", "batch_size", "num_cpu_devices", "loss.", "optim.")
        )
        if shared and key not in ("optim.beta2", "optim.learning_rate"):  # each system has its own
            assert one[key] == other[key], key
    sizes = [
        sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(build(c).init, jax.random.key(0)).params))
        for c in (ours, theirs)
    ]
    assert abs(sizes[0] / sizes[1] - 1) < 0.05


def test_what_the_systems_share_has_no_system():
    assert common.get_config().system == ""
    assert set(common.get_config()) < set(perturbed_masks.get_config())
    assert set(common.get_config()) < set(fomm_base.get_config())


@pytest.mark.parametrize(("module", "section"), [(puppets, "coarse"), (fomm_puppets, "motion")])
def test_a_config_that_lacks_a_setting_of_its_system_is_a_sentence(module, section):
    c = module.get_config().unlock()
    del c[section]["width"]
    with pytest.raises(UserError, match=r"lacks a setting.*width"):
        build(c)


@pytest.mark.parametrize("name", ["mgif", "voxceleb", "fomm_mgif", "fomm_voxceleb"])
def test_a_small_run_on_real_clips_starts_from_a_bundled_checkpoint_that_fits(name):
    config = load_config(f"configs/{name}.py:small")
    record = read_initial(config, build(config)).record
    assert record["path"].startswith("puppets")
    assert record["taken"] > len(record["fresh"])
