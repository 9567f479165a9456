"""Do the configs say what the paper and the released code say?"""

import pytest

from configs import bair, common, demo, mgif, puppets, taichi, voxceleb
from maskanim_jax.errors import UserError
from maskanim_jax.systems import build

EVERY = [taichi, voxceleb, bair, mgif, puppets, demo]


@pytest.mark.parametrize("module", EVERY, ids=lambda m: m.__name__)
@pytest.mark.parametrize("reading", ["paper", "released"])
def test_every_config_builds_its_system(module, reading):
    config = module.get_config(reading)
    assert config.reading == reading
    assert build(config).frame_size == config.frame_size


def test_the_papers_reading_of_taichi():
    c = taichi.get_config()
    assert (c.frame_size, c.mask.size, c.batch_size, c.data.repeats) == (256, 64, 16, 150)
    assert (tuple(c.loss.scales), tuple(c.loss.taps)) == ((256, 128, 64), ("relu1_1", "relu2_1", "relu3_1"))
    assert (c.loss.perceptual, c.loss.mask, c.perturb.noise, c.perturb.strips) == (10, 100, 20, 6)
    assert (c.perturb.threshold, c.perturb.test_threshold, c.perturb.test_scale) == ("median", "median", 0.75)
    assert build(c).departures() == []


@pytest.mark.parametrize(
    ("module", "batch", "taps", "threshold"), [(taichi, 20, 5, "60"), (bair, 18, 5, "60"), (voxceleb, 16, 3, "100")]
)
def test_the_released_readings(module, batch, taps, threshold):
    c = module.get_config("released")
    assert (c.batch_size, len(c.loss.taps), c.perturb.threshold, c.optim.beta2) == (batch, taps, threshold, 0.999)
    assert tuple(c.loss.scales) == (256, 128, 64, 32)
    assert build(c).departures() == []


def test_an_epoch_is_the_papers():
    assert (voxceleb.get_config().data.repeats, bair.get_config().data.sampling) == (75, "clip")


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_a_small_or_large_model_is_a_config(size):
    c = common.get_config()
    c.frame_size, c.mask.size = size, size // 4
    c.mask.blocks = c.refine.blocks = 4
    c.loss.scales = c.loss.coarse_scales = (size, size // 2)
    assert build(c).frame_size == size


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("frame_size", 250, "power of two"),
        ("mask.blocks", 9, "too often"),
        ("mask.border", "none", "'zero' or 'same'"),
        ("precision", "float64", "one of float32"),
        ("loss.taps", ("relu9_1",), "relu1_1 to relu5_4"),
        ("loss.scales", (100,), "does not divide"),
        ("perturb.threshold", "half", "'median' or a number"),
        ("perturb.strips", 40, "too many"),
        ("system", "magic", "the systems are"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(field, value, sentence):
    c = common.get_config()
    c.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=sentence):
        build(c)


def test_an_unknown_reading_is_one_sentence():
    with pytest.raises(UserError, match="paper or released"):
        taichi.get_config("draft")
