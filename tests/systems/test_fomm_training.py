"""Does every loss of FOMM update the right networks, and no others? Does the discriminator match its definition?"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import fomm_base
from maskanim_jax.nn.functional import FunctionalModule
from maskanim_jax.pretrained.vgg19 import untrained_vgg19
from maskanim_jax.systems import build
from maskanim_jax.systems.fomm.discriminator import Discriminator, InstanceNorm, SpectralConv
from maskanim_jax.systems.fomm.equivariance import draw_warp, warp_frames
from maskanim_jax.systems.fomm.losses import adversarial_losses, discriminator_loss, losses

pytestmark = pytest.mark.slow

BOTH, CRITIC = {"keypoints", "generator"}, {"discriminator"}
MOVES = {
    "perceptual": BOTH,
    "gan": BOTH,
    "feature_matching": BOTH,
    "equivariance_value": {"keypoints"},
    "equivariance_jacobian": {"keypoints"},
    "discriminator": CRITIC,
}


def tiny(adversarial=True):
    """32-pixel frames, four keypoints, the discriminator with everything on."""
    c = fomm_base.get_config()
    c.frame_size = 32
    c.keypoints.num_keypoints, c.keypoints.scale, c.motion.scale = 4, 0.5, 0.5
    for network in (c.keypoints, c.motion):
        network.width, network.num_blocks, network.max_width = 4, 1, 8
    c.generator.width, c.generator.max_width, c.generator.down_blocks, c.generator.residual_blocks = 4, 8, 1, 1
    c.discriminator.width, c.discriminator.max_width, c.discriminator.num_blocks = 4, 16, 2
    c.loss.pyramid_sizes, c.loss.vgg_layers, c.loss.vgg = (32,), ("relu1_1",), "untrained"
    return fomm_base.adversarial(c, keypoints=True, spectral_norm=True) if adversarial else c


@pytest.fixture(scope="module")
def setting():
    system = build(tiny())
    vgg = {name: jnp.asarray(value) for name, value in untrained_vgg19(0).items()}
    return (
        system,
        jax.jit(system.init)(jax.random.key(0)),
        vgg,
        jax.random.uniform(jax.random.key(1), (2, 3, 32, 32, 3)),
    )


@pytest.fixture(scope="module")
def step(setting):
    """(losses, gradients of each loss alone, statistics after the step, what was computed on the way)."""
    system, variables, vgg, (source, driving) = setting

    @jax.jit
    def everything(params, stats, vgg):
        def run(params):
            found, after, seen = losses(system, params, stats, vgg, source, driving, driving, jax.random.key(2))
            return found, (after, seen)

        found, back, (after, seen) = jax.vjp(run, params, has_aux=True)
        one_by_one = {name: back({other: jnp.float32(other == name) for other in found})[0] for name in found}
        return found, one_by_one, after, seen

    return everything(variables.params, variables.stats, vgg)


@pytest.mark.parametrize("network", ["keypoints", "generator", "discriminator"])
@pytest.mark.parametrize("loss", MOVES)
def test_a_loss_moves_its_networks_and_leaves_the_others_exactly_alone(step, loss, network):
    leaves = jax.tree.leaves(step[1][loss][network])
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    assert (max(float(jnp.abs(leaf).max()) for leaf in leaves) > 0) == (network in MOVES[loss])


def test_there_are_no_other_losses(step):
    assert set(step[0]) == set(MOVES)
    assert all(np.isfinite(value) and value > 0 for value in step[0].values())


def test_the_detector_s_statistics_follow_source_driver_and_warped_frame_in_turn(setting, step):
    system, variables, _, (source, driving) = setting
    _, _, after, seen = step
    detect = jax.jit(lambda params, stats, frames: system.networks["keypoints"](params, stats, frames, train=True)[1])
    expected = variables.stats["keypoints"]
    for frames in (source, driving, seen["warped"]):
        expected = detect(variables.params["keypoints"], expected, frames)
    for ours, wanted in zip(*map(jax.tree.leaves, (after["keypoints"], expected)), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-4, atol=1e-6)


def test_the_warp_is_drawn_from_the_key(setting, step):
    system, _, _, (_, driving) = setting
    draw = jax.jit(lambda key: warp_frames(draw_warp(key, 3, system.config.equivariance), driving, align_corners=False))
    np.testing.assert_allclose(step[3]["warped"], draw(jax.random.key(2)), atol=1e-4)
    assert np.abs(step[3]["warped"] - draw(jax.random.key(3))).max() > 0.01


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("no_eq12", {"perceptual", "equivariance_value"}),
        ("identity_jacobian", {"perceptual", "equivariance_value"}),
        ("nothing known of the warp", {"perceptual"}),
    ],
)
def test_an_ablation_leaves_its_losses_out(setting, variant, expected):
    c = tiny(adversarial=False)
    if variant in fomm_base.VARIANTS:
        c = fomm_base.apply_variant(c, variant)
    else:
        c.loss.equivariance_value = c.loss.equivariance_jacobian = 0.0
    system, frames = build(c), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(system.init, jax.random.key(0))
    found, after, seen = jax.eval_shape(
        lambda v, *given: losses(system, v.params, v.stats, *given, jax.random.key(0)),
        variables,
        setting[2],
        *[frames] * 3,
    )
    assert set(found) == expected
    assert set(after) == {"keypoints", "generator"}
    assert ("keypoints_warped" in seen) == ("equivariance_value" in expected)


def test_losses_are_float32_whatever_the_precision(setting):
    c = tiny()
    c.precision = "bfloat16"
    system, frames = build(c), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(system.init, jax.random.key(0))
    found, after, _ = jax.eval_shape(
        lambda v, *given: losses(system, v.params, v.stats, *given, jax.random.key(0)),
        variables,
        setting[2],
        *[frames] * 3,
    )
    assert {leaf.dtype for leaf in jax.tree.leaves((found, after))} == {jnp.dtype(jnp.float32)}
    assert jax.tree.structure(after) == jax.tree.structure(variables.stats)


# -- the discriminator -------------------------------------------------------------------------------------------------------------


def test_least_squares_of_a_discriminator_that_says_the_same_everywhere():
    """Its last bias is what it says of every place: 0.25."""
    system = build(tiny())
    critic, stats = jax.jit(system.networks["discriminator"].init)(jax.random.key(0))
    critic["last"] = {"kernel": critic["last"]["kernel"], "bias": jnp.full((1,), 0.25)}
    critic["block1"]["norm"] = jax.tree.map(jnp.zeros_like, critic["block1"]["norm"])
    frames = jax.random.uniform(jax.random.key(1), (2, 2, 32, 32, 3))
    keypoints = {"value": jnp.zeros((2, 4, 2))}
    found, _ = jax.jit(lambda *given: adversarial_losses(system, *given))(critic, stats, *frames, keypoints)
    own, _ = jax.jit(lambda *given: discriminator_loss(system, *given))(critic, stats, *frames, keypoints)
    assert float(found["gan"]) == pytest.approx(0.75**2)
    assert float(own) == pytest.approx(0.75**2 + 0.25**2)
    assert found["feature_matching"] > 0
    same, _ = jax.jit(lambda *given: adversarial_losses(system, *given))(
        critic, converged(critic, stats, system, frames[0]), frames[0], frames[0], keypoints
    )
    assert same["feature_matching"] < 1e-3  # nothing to match between a frame and itself


def converged(critic, stats, system, frames):
    """Statistics after so many power iterations that another one changes nothing."""

    def body(_, stats):
        return system.networks["discriminator"](critic, stats, frames[:1], jnp.zeros((1, 4, 2)), train=True)[1]

    return jax.jit(lambda stats: jax.lax.fori_loop(0, 200, body, stats))(stats)


def test_keypoints_get_no_gradient_from_the_discriminator_but_change_what_it_says(setting):
    system, variables, _, (source, driving) = setting
    critic, stats = variables.params["discriminator"], variables.stats["discriminator"]

    @jax.jit
    def run(points):
        found, _ = adversarial_losses(system, critic, stats, driving, source, {"value": points})
        return found["gan"] + found["feature_matching"]

    points = jax.random.uniform(jax.random.key(4), (3, 4, 2), minval=-0.5, maxval=0.5)
    assert np.all(np.asarray(jax.jit(jax.grad(run))(points)) == 0)
    assert float(run(points)) != float(run(points + 0.3))


def test_a_discriminator_learns_to_tell_two_sets_of_frames_apart():
    system = build(tiny())
    critic, stats = jax.jit(system.networks["discriminator"].init)(jax.random.key(0))
    real = jax.random.uniform(jax.random.key(1), (4, 32, 32, 3))
    made = jnp.full_like(real, 0.5) + 0.01 * real
    tx = optax.adam(2e-3)

    @jax.jit
    def learn(critic, stats):
        def body(state, _):
            critic, stats, moments = state
            (loss, stats), grads = jax.value_and_grad(
                lambda critic: discriminator_loss(system, critic, stats, real, made, {"value": jnp.zeros((4, 4, 2))}),
                has_aux=True,
            )(critic)
            updates, moments = tx.update(grads, moments)
            return (optax.apply_updates(critic, updates), stats, moments), loss

        return jax.lax.scan(body, (critic, stats, tx.init(critic)), None, length=30)[1]

    curve = learn(critic, stats)
    assert curve[-1] < 0.5 * curve[0]


def test_spectral_norm_makes_the_largest_singular_value_one():
    layer = FunctionalModule(lambda rngs: Whole(rngs))
    params, stats = layer.init(jax.random.key(0))
    x = jnp.ones((1, 4, 4, 3))
    run = jax.jit(lambda stats: layer(params, stats, x, train=True))
    kernel = np.asarray(params["conv"]["kernel"])
    matrix = kernel.transpose(3, 2, 0, 1).reshape(8, -1)

    # One call is one step of PyTorch's power iteration: v from u, then u from v.
    v = matrix.T @ np.asarray(stats["conv"]["u"])
    v /= np.linalg.norm(v)
    u = matrix @ v
    u /= np.linalg.norm(u)
    _, stats = run(stats)
    np.testing.assert_allclose(stats["conv"]["u"], u, atol=1e-5)
    np.testing.assert_allclose(stats["conv"]["v"], v, atol=1e-5)

    for _ in range(100):
        y, stats = run(stats)
    largest = np.linalg.svd(matrix, compute_uv=False)[0]
    linear = np.einsum("hwio,nhwi->no", kernel / largest, np.asarray(x)) + np.asarray(params["conv"]["bias"])
    np.testing.assert_allclose(y[:, 0, 0], linear, rtol=1e-3, atol=1e-5)
    still, after = layer(params, stats, x, train=False)
    np.testing.assert_allclose(still, y, atol=1e-5)
    assert after is stats


class Whole(nnx.Module):
    """One spectral conv as a network."""

    def __init__(self, rngs):
        self.conv = SpectralConv(3, 8, 4, rngs=rngs)

    def __call__(self, x, train):
        return self.conv.normalised(x, train)


def test_instance_norm_knows_neither_other_frames_nor_other_channels():
    norm = InstanceNorm(2)
    x = 3 + 5 * jax.random.normal(jax.random.key(0), (3, 6, 6, 2))
    y = np.asarray(norm(x))
    np.testing.assert_allclose(y.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((1, 2)), 1, atol=1e-3)
    np.testing.assert_allclose(norm(x[1:2]), y[1:2], atol=1e-5)


def test_the_maps_of_the_released_sizes_at_256():
    """253 rows are pooled to 126, and so on: the odd last one is left out."""
    c = fomm_base.get_config()
    c.discriminator.keypoints = True
    network = FunctionalModule(lambda rngs: Discriminator(c.discriminator, 10, dtype=jnp.float32, rngs=rngs))
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    frames, points = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((2, 256, 256, 3), (2, 10, 2)))
    seen, _ = jax.eval_shape(lambda *given: network(*given, train=True), params, stats, frames, points)
    assert [maps.shape[1:] for maps in seen["features"]] == [
        (126, 126, 64),
        (61, 61, 128),
        (29, 29, 256),
        (26, 26, 512),
    ]
    assert seen["prediction"].shape == (2, 26, 26, 1)
    assert params["block0"]["conv"]["kernel"].shape == (4, 4, 13, 64)
    assert "norm" not in params["block0"]
    assert stats == {}
