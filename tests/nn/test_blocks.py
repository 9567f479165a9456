"""Do layers and resizes match their definitions?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from maskanim_jax.nn.blocks import EncoderDecoder, ResidualBlock
from maskanim_jax.nn.functional import FunctionalModule
from maskanim_jax.nn.kernels.pooling import average_pool
from maskanim_jax.nn.kernels.upsampling import upsample
from maskanim_jax.nn.layers import BatchNorm
from maskanim_jax.nn.resize import antialiased_downscale, bilinear


def test_a_fourfold_bilinear_downscale_reads_the_centre_2x2_of_each_4x4_patch():
    x = jax.random.uniform(jax.random.key(0), (1, 16, 16, 3))
    centre = np.asarray(x).reshape(1, 4, 4, 4, 4, 3)[:, :, 1:3, :, 1:3].mean((2, 4))
    np.testing.assert_allclose(bilinear(x, 4), centre, atol=1e-6)


def test_bilinear_upscale_keeps_a_ramp_and_repeats_the_edge():
    x = jnp.broadcast_to(jnp.arange(4.0)[None, None, :, None], (1, 4, 4, 1))
    row = np.asarray(bilinear(x, 8))[0, 0, :, 0]
    np.testing.assert_allclose(row, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


def test_the_antialiased_downscale_is_a_gaussian_blur_and_every_fourth_pixel():
    x = np.asarray(jax.random.uniform(jax.random.key(1), (1, 32, 32, 1)))
    offsets = np.arange(-6, 7)
    taps = np.exp(-(offsets**2) / (2 * 1.5**2))
    kernel = np.outer(taps, taps) / taps.sum() ** 2
    padded = np.pad(x[0, ..., 0], 6)
    blurred = np.array(
        [[(padded[i : i + 13, j : j + 13] * kernel).sum() for j in range(0, 32, 4)] for i in range(0, 32, 4)]
    )
    np.testing.assert_allclose(np.asarray(antialiased_downscale(jnp.asarray(x), 8))[0, ..., 0], blurred, atol=1e-5)


@pytest.mark.slow
def test_initial_values_are_those_that_each_would_have_alone():
    key = jax.random.key(7)
    params, _ = FunctionalModule(lambda rngs: EncoderDecoder(3, 8, 3, 16, skips=True, rngs=rngs)).init(key)
    alone = nnx.state(EncoderDecoder(3, 8, 3, 16, skips=True, rngs=nnx.Rngs(params=key)), nnx.Param)
    jax.tree.map(np.testing.assert_array_equal, params, nnx.to_pure_dict(alone))


def test_upsampling_then_pooling_changes_nothing():
    x = jax.random.uniform(jax.random.key(2), (2, 4, 6, 3))
    np.testing.assert_allclose(average_pool(upsample(x)), x, atol=1e-6)
    assert np.asarray(upsample(x))[0, 2, 3, 1] == np.asarray(x)[0, 1, 1, 1]


def test_batch_norm_keeps_the_unbiased_variance_and_normalises_by_the_biased_one():
    network = FunctionalModule(lambda rngs: BatchNorm(2))
    params, stats = network.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, 2)) * 3 + 1
    y, after = network(params, stats, x, train=True)
    flat = np.asarray(x).reshape(-1, 2)
    np.testing.assert_allclose(after["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(after["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 2).std(0), 1, rtol=1e-4)
    still, same = network(params, after, x, train=False)
    assert same is after
    np.testing.assert_allclose(still, (x - after["mean"]) / np.sqrt(after["var"] + 1e-5), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("skips", "outputs"), [(False, 4), (True, 7)])
def test_an_encoder_decoder_ends_with_e_channels_and_a_u_net_with_e_plus_in(skips, outputs):
    network = FunctionalModule(lambda rngs: EncoderDecoder(3, 4, 2, 1024, skips=skips, rngs=rngs))
    x = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32)
    y = jax.eval_shape(lambda key, x: network(*network.init(key), x, train=False)[0], jax.random.key(0), x)
    assert y.shape == (1, 8, 8, outputs)


def test_a_u_net_ends_with_its_raw_input():
    network = FunctionalModule(lambda rngs: EncoderDecoder(3, 4, 2, 1024, skips=True, rngs=rngs))
    params, stats = network.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (1, 8, 8, 3))
    y, _ = network(params, stats, x, train=False)
    np.testing.assert_array_equal(y[..., 4:], x)


@pytest.mark.slow
def test_half_precision_keeps_parameters_and_statistics_in_float32():
    network = FunctionalModule(lambda rngs: EncoderDecoder(3, 4, 2, 1024, dtype=jnp.bfloat16, rngs=rngs))
    params, stats = network.init(jax.random.key(0))
    y, after = network(params, stats, jax.random.uniform(jax.random.key(1), (2, 8, 8, 3)), train=True)
    assert y.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((params, after)))


@pytest.mark.slow
def test_folded_batch_norms_change_nothing_but_the_operations():
    for make in (
        lambda rngs: EncoderDecoder(3, 4, 2, 1024, skips=True, rngs=rngs),
        lambda rngs: ResidualBlock(3, rngs=rngs),
    ):
        network = FunctionalModule(make)
        params, stats = network.init(jax.random.key(0))
        x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
        for _ in range(3):
            _, stats = network(params, stats, x, train=True)
        folded = network.fold(params, stats)
        np.testing.assert_allclose(
            network(*folded, x, train=False)[0], network(params, stats, x, train=False)[0], atol=1e-5
        )
        assert len(jax.tree.leaves(folded)) < len(jax.tree.leaves((params, stats)))
        with pytest.raises(ValueError, match="folded"):
            network(*folded, x, train=True)


@pytest.mark.slow
def test_recomputed_activations_give_the_same_gradients():
    x = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    found = []
    for remat in (False, True):
        network = FunctionalModule(lambda rngs: EncoderDecoder(3, 4, 2, 1024, skips=True, rngs=rngs), remat=remat)
        params, stats = network.init(jax.random.key(0))
        compute = jax.jit(jax.grad(lambda p, n=network, s=stats: jnp.square(n(p, s, x, train=True)[0]).sum()))
        found.append((compute(params), str(jax.make_jaxpr(compute)(params)).count("conv_general_dilated")))
    for one, other in zip(*(jax.tree.leaves(grads) for grads, _ in found), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=2e-3)  # a bias before a batch norm has but noise
    assert found[1][1] > found[0][1]  # the forward convs are there twice
