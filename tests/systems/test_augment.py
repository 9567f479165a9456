"""Does colour jitter match its definition, and are pairs flipped as specified?"""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.perturbed_masks import get_config
from maskanim_jax.systems.augmentation import Jitter, apply_jitter, draw_jitter, flip_pairs, luma, shift_hue


def frames(count=4, key=0):
    return jax.random.uniform(jax.random.key(key), (count, 8, 8, 3))


def one_change(**changes):
    values = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **changes}
    return Jitter(
        *(jnp.full((4,), values[name]) for name in ("brightness", "contrast", "saturation", "hue")),
        jnp.tile(jnp.arange(4), (4, 1)),
    )


@pytest.mark.slow
def test_the_neutral_draw_changes_nothing():
    np.testing.assert_allclose(apply_jitter(frames(), one_change()), frames(), atol=1e-5)


def test_each_change_is_its_definition():
    x = frames() * 0.8
    np.testing.assert_allclose(apply_jitter(x, one_change(brightness=1.1)), x * 1.1, atol=1e-5)
    grey = luma(x).mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(apply_jitter(x, one_change(contrast=0.9)), grey + 0.9 * (x - grey), atol=1e-5)
    np.testing.assert_allclose(luma(apply_jitter(x, one_change(saturation=0.9))), luma(x), atol=1e-5)


@pytest.mark.parametrize("turns", [-0.1, 0.03, 0.1, 0.5])
def test_hue_is_turned_as_in_hsv(turns):
    x = np.asarray(frames(1))[0].reshape(-1, 3)
    expected = []
    for pixel in x:
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb((h + turns) % 1, s, v))
    np.testing.assert_allclose(shift_hue(jnp.asarray(x), jnp.float32(turns)), expected, atol=1e-5)


def test_grey_pixels_keep_their_value_when_hue_turns():
    np.testing.assert_allclose(shift_hue(jnp.full((2, 3), 0.4), jnp.float32(0.1)), 0.4)


def test_draws_stay_in_the_papers_ranges_and_all_orders_come():
    draw = draw_jitter(jax.random.key(0), 4000, get_config().data)
    for factors in draw[:3]:
        assert 0.9 <= factors.min() < 0.905
        assert 1.095 < factors.max() <= 1.1
    assert -0.1 <= draw.hue.min() < -0.095
    assert len(np.unique(np.asarray(draw.order), axis=0)) == 24


def test_a_pair_is_swapped_or_mirrored_or_left_never_both():
    data = get_config().data
    source, driving = frames(4000, 1), frames(4000, 2)
    s, d = map(np.asarray, flip_pairs(jax.random.key(0), source, driving, data))
    source, driving = np.asarray(source), np.asarray(driving)
    same = (s == source).all((1, 2, 3)) & (d == driving).all((1, 2, 3))
    swapped = (s == driving).all((1, 2, 3)) & (d == source).all((1, 2, 3))
    mirrored = (s == source[:, :, ::-1]).all((1, 2, 3)) & (d == driving[:, :, ::-1]).all((1, 2, 3))
    assert (same.astype(int) + swapped + mirrored == 1).all()
    np.testing.assert_allclose([swapped.mean(), mirrored.mean(), same.mean()], [0.5, 0.25, 0.25], atol=0.03)
