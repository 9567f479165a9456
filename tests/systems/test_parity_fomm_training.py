"""Are FOMM's losses and gradients of one training step equal to the released implementation's?

vox-adv, nothing augmented, the equivariance warp as they drew it. Gradients of the generator's adversarial losses with respect to the
discriminator exist there and are thrown away; `generator_losses` takes its parameters apart, so that they can be compared too.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fomm_parity import config, frames, needed, stored, variables, vgg
from parity import FOLDER

from maskanim_jax.systems import build
from maskanim_jax.systems.fomm.equivariance import Warp, control_grid, warp_frames
from maskanim_jax.systems.fomm.losses import discriminator_loss, generator_losses

pytestmark = [pytest.mark.slow, needed]
THEIRS = {
    "perceptual": "perceptual",
    "gan": "gen_gan",
    "feature_matching": "feature_matching",
    "equivariance_value": "equivariance_value",
    "equivariance_jacobian": "equivariance_jacobian",
    "discriminator": "disc_gan",
}
NETWORKS = {"keypoints": "kp_detector", "generator": "generator", "discriminator": "discriminator"}


def stored_warp():
    theirs = stored("fomm_train")
    return Warp(jnp.asarray(theirs["theta"]), control_grid(5), jnp.asarray(theirs["control_params"]))


@pytest.fixture(scope="module")
def step():
    """(losses, gradients of each loss by network, what was computed on the way)."""
    system = build(config())
    v = jax.tree.map(jnp.asarray, variables())
    source, driving = map(jnp.asarray, frames())

    @jax.jit
    def everything(v, vgg, source, driving, warp):
        def run(params):
            found, after, seen = generator_losses(
                system, params, params["discriminator"], v.stats, vgg, source, driving, driving, jax.random.key(0), warp
            )
            return found, (after, seen)

        losses, back, (after, seen) = jax.vjp(run, v.params, has_aux=True)
        grads = {name: back({other: jnp.float32(other == name) for other in losses})[0] for name in losses}

        def own(params):
            given = (driving, seen["prediction"], seen["keypoints_driving"])
            return discriminator_loss(system, params["discriminator"], after.get("discriminator", {}), *given)[0]

        losses["discriminator"], grads["discriminator"] = jax.value_and_grad(own)(v.params)
        squares = jax.tree.map(lambda leaf: jnp.square(leaf).sum(), grads)
        norms = {
            loss: {name: jnp.sqrt(sum(jax.tree.leaves(tree))) for name, tree in by_network.items()}
            for loss, by_network in squares.items()
        }
        return losses, norms, seen

    weights = {name: jnp.asarray(value) for name, value in vgg().items()}
    return jax.device_get(everything(v, weights, source, driving, stored_warp()))


@pytest.fixture(scope="module")
def theirs():
    return json.loads((FOLDER / "fomm_train.json").read_text())


def test_the_warped_frame():
    _, driving = frames()
    ours = jax.jit(lambda frames: warp_frames(stored_warp(), frames, align_corners=False))(driving)
    np.testing.assert_allclose(ours, stored("fomm_train")["transformed_frame"], atol=1e-3)


def test_keypoints_of_the_driving_and_the_warped_frame(step):
    _, _, seen = step
    arrays = stored("fomm_train")
    np.testing.assert_allclose(seen["keypoints_driving"]["value"], arrays["kp_driving"], atol=1e-4)
    np.testing.assert_allclose(seen["keypoints_warped"]["value"], arrays["transformed_kp"], atol=1e-4)


def test_the_prediction_in_training_mode(step):
    np.testing.assert_allclose(step[2]["prediction"], stored("fomm_train")["prediction"], atol=2e-3)


@pytest.mark.parametrize("loss", THEIRS)
def test_each_loss_is_equal(step, theirs, loss):
    assert float(step[0][loss]) == pytest.approx(theirs["losses"][THEIRS[loss]], rel=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("loss", THEIRS)
def test_the_gradient_norm_of_each_network_for_each_loss(step, theirs, loss, network):
    expected = theirs["grad_norm"][THEIRS[loss]][NETWORKS[network]]
    found = float(step[1][loss][network])
    if expected == 0:
        assert found == 0  # exactly: nothing may flow
    else:
        assert found == pytest.approx(expected, rel=0.01)
