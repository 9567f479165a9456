"""Do this project's convolutions and their gradients equal XLA's, for every algorithm?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from maskanim_jax.nn.kernels import convolution, upsampling, winograd
from maskanim_jax.nn.kernels.convolution import conv2d
from maskanim_jax.nn.kernels.native import build
from maskanim_jax.nn.kernels.upsampling import upsample, upsampled_conv2d
from maskanim_jax.nn.layers import Conv


@pytest.fixture(autouse=True)
def without_compiled_convolutions(monkeypatch):
    """What XLA gets where there is no compiler; tests/nn/test_native.py has the others."""
    monkeypatch.setattr(build, "prefix", lambda: "")


def plain(x, kernel, padding="SAME"):
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def some(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def both(ours, theirs, *inputs):
    """(value, gradients) of the two functions under one random cotangent."""
    value, pull = jax.vjp(theirs, *inputs)
    wanted = (value, *pull(some(*value.shape, seed=9).astype(value.dtype)))
    value, pull = jax.vjp(ours, *inputs)
    return (value, *pull(some(*value.shape, seed=9).astype(value.dtype))), wanted


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("outputs", [1, 3, 16], ids=["thin", "three", "wide"])
def test_values_and_gradients_are_those_of_the_plain_convolution(monkeypatch, padding, size, outputs):
    monkeypatch.setattr(convolution, "BLOCK_BYTES", 5000)  # several blocks, the last one shorter
    monkeypatch.setattr(convolution, "BLOCKING_MIN_PIXELS", 1)
    x, kernel = some(2, 22, 9, 12), some(size, size, 12, outputs, seed=1)
    found, wanted = both(lambda x, k: conv2d(x, k, padding), lambda x, k: plain(x, k, padding), x, kernel)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.parametrize("small", [0, 10**6], ids=["convolutions", "one product"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 7), (8, 13), (3, 1)])
@pytest.mark.slow
def test_half_of_the_multiplications_give_the_plain_convolution_and_its_gradients(monkeypatch, small, height, width):
    monkeypatch.setattr(winograd, "EINSUM_MAX_PIXELS", small)
    x, kernel = some(2, height, width, 12), some(3, 3, 12, 10, seed=1)
    value, pull = jax.vjp(plain, x, kernel)
    g = some(*value.shape, seed=9)
    found = winograd.conv2d(x, kernel), winograd.input_gradient(kernel, g), winograd.kernel_gradient(x, g)
    for ours, theirs in zip(found, (value, *pull(g)), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.slow
def test_wide_convolutions_on_a_cpu_make_little_more_than_half_of_the_operations():
    x, kernel = some(2, 32, 32, 64), some(3, 3, 64, 64, seed=1)
    found, wanted = both(conv2d, plain, x, kernel)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))

    def flops(function):
        gradients = jax.jit(lambda x, k, g: jax.vjp(function, x, k)[1](g))
        return gradients.lower(x, kernel, wanted[0]).compile().cost_analysis()["flops"]

    assert flops(conv2d) < 0.6 * flops(plain)


def test_half_precision_keeps_the_plain_convolution():
    """Its rounding is coarser than what the combinations of rows could bear."""
    x, kernel = some(1, 16, 16, 64).astype(jnp.bfloat16), some(3, 3, 64, 64, seed=1).astype(jnp.bfloat16)
    np.testing.assert_array_equal(jax.jit(conv2d)(x, kernel), jax.jit(plain)(x, kernel))


def test_half_precision_keeps_the_folded_convolution():
    x, kernel = (
        some(1, 32, 32, 8).astype(jnp.bfloat16),
        some(3, 3, 8, upsampling.DIFFERENCES_MIN_OUTPUTS, seed=1).astype(jnp.bfloat16),
    )
    found, folded = (jax.jit(way)(x, kernel) for way in (upsampled_conv2d, upsampling.folded_conv2d))
    np.testing.assert_array_equal(found, folded)


@pytest.mark.parametrize(("side", "folded"), [(16, True), (4, False)])
@pytest.mark.slow
def test_upsampling_is_folded_into_the_convolution(side, folded):
    x, kernel = some(2, side, side, 8), some(3, 3, 8, 5, seed=1)
    assert (2 * side * side >= upsampling.FOLDING_MIN_PIXELS) == folded
    found, wanted = both(upsampled_conv2d, lambda x, k: plain(upsample(x), k), x, kernel)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


def test_upsampled_pictures_that_are_not_square_and_of_odd_size():
    x, kernel = some(3, 17, 31, 4), some(3, 3, 4, 2, seed=1)
    np.testing.assert_allclose(upsampled_conv2d(x, kernel), plain(upsample(x), kernel), atol=1e-5)


def test_the_folded_convolution_makes_less_than_half_of_the_operations():
    x, kernel = some(1, 64, 64, 32), some(3, 3, 32, 32, seed=1)

    def flops(function):
        return jax.jit(function).lower(x, kernel).compile().cost_analysis()["flops"]

    assert flops(upsampled_conv2d) < 0.5 * flops(lambda x, k: plain(upsample(x), k))


def test_the_type_is_kept_in_the_backward_pass():
    x, kernel = some(1, 16, 16, 4).astype(jnp.bfloat16), some(3, 3, 4, 4).astype(jnp.bfloat16)
    value, pull = jax.vjp(conv2d, x, kernel)
    assert {value.dtype, *(leaf.dtype for leaf in pull(value))} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize("channels", [48, 64], ids=["blocks", "half of the multiplications"])
def test_only_a_cpu_takes_a_convolution_apart(channels):
    x, kernel = jnp.zeros((1, 128, 128, channels)), jnp.zeros((3, 3, channels, channels))
    gradient = jax.jit(jax.grad(lambda k, x: jnp.square(conv2d(x, k)).sum()))

    def convolutions(platform):
        return jax.export.export(gradient, platforms=[platform])(kernel, x).mlir_module().count("stablehlo.convolution")

    assert convolutions("tpu") == convolutions("cuda") <= 2
    assert convolutions("cpu") > convolutions("tpu")


@pytest.mark.slow
def test_wide_upsampled_convolutions_take_nine_products():
    x, kernel = some(1, 32, 32, 16), some(3, 3, 16, upsampling.DIFFERENCES_MIN_OUTPUTS, seed=1)
    found, wanted = both(upsampled_conv2d, lambda x, k: plain(upsample(x), k), x, kernel)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))

    def flops(function):
        return jax.jit(function).lower(x, kernel).compile().cost_analysis()["flops"]

    assert flops(upsampled_conv2d) < 0.7 * flops(upsampling.folded_conv2d)


@pytest.mark.parametrize("way", [upsampling.folded_conv2d, upsampling.differences_conv2d, upsampling.dilated_conv2d])
@pytest.mark.slow
def test_each_platforms_form_of_the_upsampled_convolution(way):
    x, kernel = some(2, 17, 16, 6), some(3, 3, 6, 5, seed=1)
    found, wanted = both(way, lambda x, k: plain(upsample(x), k), x, kernel)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * float(jnp.abs(theirs).max()))


@pytest.mark.slow
def test_a_convolution_of_parts_is_that_of_their_channels_beside_each_other():
    conv = Conv(11, 3, 7, rngs=nnx.Rngs(0))
    parts = some(2, 12, 9, 8), some(2, 12, 9, 3, seed=1)
    np.testing.assert_allclose(conv.apply_concat(parts), conv(jnp.concatenate(parts, -1)), atol=1e-5)
