"""Do VGG-19's layers and the perceptual pyramid match Eq. 9? The reference is written with scipy, layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import correlate

from maskanim_jax.errors import UserError
from maskanim_jax.losses.perceptual import perceptual_pyramid
from maskanim_jax.losses.vgg import CONVS, LAYERS, check_layers, features, used_weights
from maskanim_jax.nn.resize import antialiased_downscale
from maskanim_jax.pretrained.vgg19 import untrained_vgg19

FIRST_OF_EACH_BLOCK = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture(scope="module")
def vgg():
    return {name: jnp.asarray(value) for name, value in untrained_vgg19(3).items()}


@pytest.fixture(scope="module")
def reference(vgg):
    """Every ReLU of VGG-19 for one 16 x 16 picture, by scipy."""
    picture = np.asarray(jax.random.uniform(jax.random.key(0), (16, 16, 3)))
    x = (picture - np.asarray(vgg["mean"])) / np.asarray(vgg["std"])
    found = {}
    for block, count in enumerate(CONVS):
        if block:
            h, w, c = x.shape
            x = x.reshape(h // 2, 2, w // 2, 2, c).max((1, 3))
        for i in range(count):
            kernel, bias = (np.asarray(vgg[f"conv{block + 1}_{i + 1}/{part}"]) for part in ("kernel", "bias"))
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            maps = [correlate(padded, kernel[..., o], mode="valid")[..., 0] for o in range(kernel.shape[-1])]
            x = np.maximum(np.stack(maps, -1) + bias, 0)
            found[f"relu{block + 1}_{i + 1}"] = x
            if len(found) == LAYERS.index("relu3_1") + 1:
                return picture, found
    return picture, found


@pytest.mark.parametrize("tap", ["relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1"])
def test_a_tap_is_vgg_19s_relu(vgg, reference, tap):
    picture, found = reference
    ours = features(vgg, jnp.asarray(picture)[None], [tap])[0][0]
    np.testing.assert_allclose(ours, found[tap], rtol=1e-3, atol=1e-4)


def test_the_papers_first_third_and_fifth_relu():
    assert (LAYERS[0], LAYERS[2], LAYERS[4]) == ("relu1_1", "relu2_1", "relu3_1")
    assert len(LAYERS) == 16


def test_taps_come_in_the_order_asked_for_and_halve_with_each_block(vgg):
    sides = [tap.shape[1] for tap in features(vgg, jnp.zeros((1, 32, 32, 3)), FIRST_OF_EACH_BLOCK)]
    assert sides == [32, 16, 8, 4, 2]


@pytest.mark.slow
def test_the_loss_is_the_sum_over_scales_and_taps_of_mean_absolute_differences(vgg):
    a, b = jax.random.uniform(jax.random.key(1), (2, 2, 32, 32, 3))
    taps = ("relu1_1", "relu2_1")
    expected = 0.0
    for scale in (32, 16):
        small = [antialiased_downscale(x, scale) for x in (a, b)]
        for one, other in zip(*(features(vgg, x, taps) for x in small), strict=True):
            expected += float(jnp.abs(one - other).mean())
    assert float(perceptual_pyramid(vgg, [a], b, [(32, 16)], taps)[0]) == pytest.approx(expected, rel=1e-5)


def test_no_gradient_reaches_the_target(vgg):
    a, b = jax.random.uniform(jax.random.key(2), (2, 1, 16, 16, 3))
    grads = jax.grad(lambda x, y: perceptual_pyramid(vgg, [x], y, [(16,)], ("relu1_1",))[0], (0, 1))(a, b)
    assert float(jnp.abs(grads[0]).max()) > 0
    assert float(jnp.abs(grads[1]).max()) == 0


def test_only_the_weights_up_to_the_last_tap_are_kept(vgg):
    kept = used_weights(vgg, ("relu2_1", "relu1_1"))
    assert set(kept) == {"mean", "std"} | {
        f"conv{n}/{part}" for n in ("1_1", "1_2", "2_1") for part in ("kernel", "bias")
    }


def test_an_unknown_tap_is_a_sentence():
    with pytest.raises(UserError, match="relu1_1 to relu5_4"):
        check_layers(("relu6_1",))
