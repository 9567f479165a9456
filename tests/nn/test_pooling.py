"""Pooling has the same values and gradients in the forms of all platforms."""

import jax
import jax.numpy as jnp
import numpy as np

from maskanim_jax.nn.kernels import pooling


def both_ways(function, x):
    """Value and gradient of a function under one fixed cotangent."""
    value, pull = jax.vjp(function, x)
    return value, pull(jax.random.normal(jax.random.key(9), value.shape))[0]


def test_means_of_patches_and_of_windows():
    x = jax.random.normal(jax.random.key(0), (2, 6, 8, 3))
    (patches, to_x), (windows, to_same) = (both_ways(f, x) for f in (pooling.patch_means, pooling.window_means))
    np.testing.assert_allclose(patches[:, 1, 2], x[:, 2:4, 4:6].mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(windows, patches, atol=1e-6)
    np.testing.assert_allclose(to_same, to_x, atol=1e-6)


def test_maxima_and_where_their_gradient_goes():
    x = jnp.round(2 * jax.random.normal(jax.random.key(0), (2, 12, 8, 5)))  # rounded: many patches have equal maxima
    (ours, to_x), (windows, to_same) = (both_ways(f, x) for f in (pooling.max_pool, pooling.window_maxima))
    np.testing.assert_array_equal(ours, windows)
    np.testing.assert_array_equal(to_x, to_same)
    assert int((to_x != 0).sum()) == ours.size  # one pixel of each patch
    assert float(jnp.abs(to_x[0, :2, :2, 0]).sum()) > 0
