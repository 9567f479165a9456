"""Do P_train and P_test do what the paper says, and what the released code's image library did?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity import needed, stored

from configs.perturbed_masks import get_config
from maskanim_jax.systems.perturbed_masks.perturbations import (
    _along_x,
    _along_y,
    _whole,
    change_shape,
    p_test,
    p_train,
    quantize,
    signed_poisson,
    threshold_levels,
)


def settings(**changes):
    perturb = get_config().perturb
    for name, value in changes.items():
        setattr(perturb, name, value)
    return perturb


def blob(count=1, side=64):
    """Masks with a soft square off the centre."""
    mask = np.zeros((count, side, side, 1), np.float32)
    mask[:, side // 4 : side // 2, side // 3 : side // 2] = 0.8
    return jnp.asarray(mask)


@needed
def test_p_test_is_the_released_one_to_one_level():
    theirs = stored("perturbation")
    ours = p_test(jnp.asarray(theirs["mask"]), "60", 0.75)
    assert np.abs(np.asarray(ours) - theirs["p_test_threshold60"]).max() * 255 < 1.01


@needed
@pytest.mark.parametrize("name", ["impulse", "ramp"])
def test_the_resize_about_the_centre_is_the_librarys_to_one_level(name):
    theirs = stored("perturbation")
    ours = p_test(jnp.asarray(theirs[f"{name}_in"] / 255.0 + 1e-4), "0", 0.75)
    assert np.abs(np.asarray(ours) * 255 - theirs[f"{name}_out"]).max() < 1.01


@needed
def test_strips_are_scaled_as_by_the_library_to_one_level():
    theirs = stored("perturbation")
    wide = jnp.asarray(theirs["strip_in_x"][0, ..., 0], jnp.float32)
    tall = jnp.asarray(theirs["strip_in_y"][0, ..., 0], jnp.float32)
    assert np.abs(_along_x(wide, _whole(20, jnp.float32(1.2))) - theirs["strip_out_x_scale1_2"][0, ..., 0]).max() <= 1
    assert np.abs(_along_y(tall, _whole(20, jnp.float32(0.8))) - theirs["strip_out_y_scale0_8"][0, ..., 0]).max() <= 1


@needed
def test_the_noise_has_the_librarys_distribution():
    histogram = stored("perturbation")["poisson20_histogram_offset100"]
    theirs = histogram / histogram.sum()
    noise = np.asarray(signed_poisson(jax.random.key(0), (1_000_000,), 20.0)).astype(int)
    ours = np.bincount(100 + noise, minlength=256)[:256] / noise.size
    assert np.abs(ours - theirs).sum() / 2 < 0.01  # total variation distance


def test_the_noise_has_mean_zero_and_the_variance_of_a_signed_poisson():
    noise = np.asarray(signed_poisson(jax.random.key(1), (400_000,), 20.0))
    assert abs(noise.mean()) < 0.2
    assert noise.std() == pytest.approx((20**2 + 20) ** 0.5, rel=0.01)


@pytest.mark.slow
def test_levels_are_truncated_and_pass_no_gradient():
    np.testing.assert_array_equal(quantize(jnp.asarray([0.0, 0.999, 1.0])), [0, 254, 255])
    for perturb in (lambda m: p_test(m, "median", 0.75), lambda m: p_train(m, jax.random.key(0), settings())):
        assert np.all(np.asarray(jax.grad(lambda m, f=perturb: f(m).sum())(blob())) == 0)


@pytest.mark.parametrize("side", [1, 2, 7, 32])
@pytest.mark.parametrize("highest", [0, 1, 255])
def test_what_is_below_the_median_is_what_is_below_the_mean_of_the_two_in_the_middle(side, highest):
    levels = jnp.asarray(np.random.default_rng(side).integers(0, highest + 1, (5, side, side, 1)), jnp.float32)
    median = np.median(levels, (1, 2, 3), keepdims=True)
    np.testing.assert_array_equal(threshold_levels(levels, "median"), np.where(levels < median, 0, levels))


def test_the_median_threshold_is_each_masks_own():
    levels = jnp.stack([jnp.arange(64.0).reshape(8, 8, 1), 100 + jnp.arange(64.0).reshape(8, 8, 1)])
    kept = np.asarray(threshold_levels(levels, "median")) > 0
    assert kept[0].sum() == kept[1].sum() == 32


def test_p_test_shrinks_by_a_quarter_about_the_centre():
    mask = np.zeros((1, 64, 64, 1), np.float32)
    mask[0, 12:52, 12:52] = 1  # 40 x 40 in the middle
    small = np.asarray(p_test(jnp.asarray(mask), "0", 0.75))
    assert small.sum() == pytest.approx(900, rel=0.02)
    np.testing.assert_allclose(small, small[:, ::-1, ::-1], atol=1.5 / 255)


@pytest.mark.slow
def test_p_train_is_a_function_of_its_key_and_differs_between_the_masks_of_a_batch():
    masks = blob(2)
    one, same, other = (np.asarray(p_train(masks, jax.random.key(k), settings())) for k in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    assert not np.array_equal(one[0], one[1])
    assert one.min() >= 0
    assert one.max() <= 1


def test_without_scaling_threshold_and_noise_p_train_is_the_mask_in_whole_levels():
    mask = jax.random.uniform(jax.random.key(3), (2, 64, 64, 1))
    still = p_train(mask, jax.random.key(0), settings(scale=0.0, whole_scale=0.0, threshold="0", noise=0.0))
    np.testing.assert_allclose(np.asarray(still) * 255, np.asarray(quantize(mask)), atol=1e-3)


def test_strips_do_not_leak_into_each_other():
    """With enlarging strips, a mask that is zero left of the first possible cut stays zero there before the whole is scaled."""
    from maskanim_jax.systems.perturbed_masks.perturbations import _random_strips

    matrix = np.asarray(_random_strips(jax.random.key(5), 64, settings()))
    assert (matrix[:15, 46:] == 0).all()
    assert (matrix[46:, :15] == 0).all()
    assert (matrix.sum(1) <= 1 + 1e-5).all()


@pytest.mark.parametrize("side", [16, 32, 64, 128])
@pytest.mark.slow
def test_p_train_works_at_every_mask_size(side):
    assert p_train(blob(1, side), jax.random.key(0), settings()).shape == (1, side, side, 1)


# -- body shapes -----------------------------------------------------------------------------------------------------------------------


def standing(side=32):
    """Grey levels of a figure of 6 x 14 pixels whose feet are in row 25."""
    levels = np.zeros((1, side, side, 1), np.float32)
    levels[:, 12:26, 13:19] = 200
    return jnp.asarray(levels)


def shapes(count=40, **changes):
    perturb = settings(**changes)
    return np.asarray(change_shape(jnp.repeat(standing(), count, 0), jax.random.key(3), perturb))[..., 0]


def test_by_default_nothing_changes_the_shape_and_p_train_is_the_papers():
    mask, key = blob(2), jax.random.key(4)
    as_before = settings(draws=3)  # of no effect on a mask
    np.testing.assert_array_equal(p_train(mask, key, settings()), p_train(mask, key, as_before))
    np.testing.assert_array_equal(shapes(2), np.repeat(np.asarray(standing())[..., 0], 2, 0))


def test_the_figure_is_scaled_about_its_foot_up_to_the_factor():
    changed = shapes(shape_scale=1.7)
    rows, columns = (changed.max(axis) > 100 for axis in (2, 1))
    heights, widths = rows.sum(1), columns.sum(1)
    assert heights.min() >= 14 / 1.7 - 1
    assert heights.min() < 10
    assert heights.max() > 18
    assert widths.max() <= 6 * 1.7 + 1
    lowest = 31 - np.argmax(rows[:, ::-1], 1)
    assert np.abs(lowest - 25).max() <= 1
    centres = (changed.sum(1) * np.arange(32)).sum(1) / changed.sum((1, 2))
    np.testing.assert_allclose(centres, 15.5, atol=0.3)
    height, width = (changed.max(axis).sum(1) / 200 for axis in (2, 1))  # with shares of pixels
    np.testing.assert_allclose(height / width, 14 / 6, rtol=0.1)


def test_the_stretch_changes_height_and_width_apart():
    changed = shapes(shape_stretch=1.5)
    rows, columns = (changed.max(axis) > 100 for axis in (2, 1))
    shape = rows.sum(1) / columns.sum(1)
    assert shape.max() / shape.min() > 1.5


def test_the_blur_thickens_some_figures_and_thins_others():
    covered = (shapes(shape_blur=2.0) > 127).sum((1, 2))
    assert covered.min() < 0.9 * 6 * 14
    assert covered.max() > 1.2 * 6 * 14


def test_shapes_are_drawn_for_each_mask_whole_levels_and_pass_no_gradient():
    wide = settings(shape_scale=1.7, shape_stretch=1.28, shape_blur=1.2, noise=0.0)
    levels = shapes(4, shape_scale=1.7, shape_stretch=1.28, shape_blur=1.2)
    assert len({one.tobytes() for one in levels}) == 4
    np.testing.assert_array_equal(levels, np.rint(levels))
    assert 0 <= levels.min() <= levels.max() <= 255
    mask = standing() / 255
    out = p_train(mask, jax.random.key(0), wide)
    assert out.shape == mask.shape
    assert not np.array_equal(out, p_train(mask, jax.random.key(0), settings(noise=0.0)))
    slope = jax.grad(lambda m: p_train(m, jax.random.key(0), wide).sum())(mask)
    assert not np.asarray(slope).any()


def test_without_a_scale_of_the_whole_the_figure_stays_in_its_place():
    """Right of the middle, the whole's scale moves it sideways by up to a quarter of that distance; strips alone do not."""

    def centres(**changes):
        mask = jnp.repeat(jnp.roll(standing() / 255, 8, axis=2), 60, 0)
        levels = np.asarray(p_train(mask, jax.random.key(3), settings(noise=0.0, scale=0.0, **changes)))[..., 0]
        return (levels.sum(1) * np.arange(32)).sum(1) / levels.sum((1, 2))

    assert np.ptp(centres(whole_scale=0.0)) < 0.1
    assert np.ptp(centres(whole_scale=0.25)) > 2


def test_an_empty_mask_stays_empty():
    empty = jnp.zeros((2, 32, 32, 1))
    wide = settings(shape_scale=1.7, shape_stretch=1.28, shape_blur=1.2)
    assert not np.asarray(change_shape(empty, jax.random.key(0), wide)).any()
