"""Are both frames of a pair resized and cropped alike, and nothing but resized and cropped?"""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from maskanim_jax.systems.augmentation import resize_and_crop, resize_pairs

SETTINGS = ConfigDict({"resize_low": 0.9, "resize_high": 1.1, "random_crop": True})
ZERO = jnp.zeros((1,))


def frames(count=1, side=32):
    return jnp.asarray(np.random.RandomState(0).rand(count, side, side, 3), jnp.float32)


def test_a_factor_of_one_changes_nothing():
    np.testing.assert_allclose(resize_and_crop(frames(), jnp.ones((1,)), ZERO, ZERO), frames(), atol=1e-6)


def test_a_crop_from_left_and_top_reads_from_there():
    shifted = resize_and_crop(frames(), jnp.ones((1,)), jnp.full((1,), 3.0), jnp.full((1,), 5.0))
    np.testing.assert_allclose(shifted[:, :-5, :-3], frames()[:, 5:, 3:], atol=1e-6)


def test_doubling_is_the_bilinear_resize():
    wide = jax.image.resize(frames(), (1, 64, 64, 3), "linear")
    np.testing.assert_allclose(
        resize_and_crop(frames(), jnp.full((1,), 2.0), jnp.full((1,), 7.0), ZERO), wide[:, :32, 7:39], atol=1e-5
    )


def test_a_smaller_frame_stands_in_the_middle_and_its_edges_go_on():
    settings = ConfigDict({"resize_low": 0.5, "resize_high": 0.5, "random_crop": True})
    small, _ = resize_pairs(jax.random.key(0), frames(), frames(), settings)
    np.testing.assert_allclose(small[:, :8], np.broadcast_to(small[:, 8:9], (1, 8, 32, 3)), atol=1e-6)
    np.testing.assert_allclose(
        small[:, 8:24, 8:24], jax.image.resize(frames(), (1, 16, 16, 3), "linear", antialias=False), atol=1e-5
    )


def test_a_pair_shares_its_draw_and_pairs_differ():
    batch = jnp.tile(frames(), (16, 1, 1, 1))
    source, driving = jax.jit(lambda key: resize_pairs(key, batch, batch, SETTINGS))(jax.random.key(1))
    np.testing.assert_array_equal(source, driving)
    assert len({frame.tobytes() for frame in np.asarray(source)}) == 16
    assert source.min() >= 0
    assert source.max() <= 1
