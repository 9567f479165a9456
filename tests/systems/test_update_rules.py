"""Does every loss update the networks that the paper specifies, and no others?"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import smallest_config

from maskanim_jax.pretrained.vgg19 import untrained_vgg19
from maskanim_jax.systems import build
from maskanim_jax.systems.optimizers import learning_rate

pytestmark = pytest.mark.slow

UPDATES = {"mask": {"refine"}, "coarse": {"coarse", "mask"}, "fine": {"fine"}}


@pytest.fixture(scope="module")
def setting():
    system = build(smallest_config())
    variables = jax.jit(system.init)(jax.random.key(0))
    vgg = {name: jnp.asarray(value) for name, value in untrained_vgg19(0).items()}
    frames = jax.random.uniform(jax.random.key(1), (2, 2, 16, 16, 3))
    return system, variables, vgg, frames


@pytest.fixture(scope="module")
def gradients(setting):
    system, variables, vgg, (source, driving) = setting

    @jax.jit
    def all_gradients(params, vgg):
        def losses(params):
            return system.losses(params, variables.stats, vgg, source, driving, driving, jax.random.key(2), True)[0]

        values, back = jax.vjp(losses, params)
        return {name: back({other: jnp.float32(other == name) for other in values})[0] for name in values}

    return all_gradients(variables.params, vgg)


@pytest.mark.parametrize("network", ["mask", "refine", "coarse", "fine"])
@pytest.mark.parametrize("loss", UPDATES)
def test_a_loss_moves_its_networks_and_leaves_the_others_exactly_alone(gradients, loss, network):
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[loss][network]))
    assert (largest > 0) == (network in UPDATES[loss])


def test_the_coarse_loss_reaches_m_through_both_masks(setting):
    system, variables, _, (source, driving) = setting

    def coarse_loss(source_mask_shift, driving_mask_shift):
        small = source[:, ::2, ::2]
        masks = [
            system.networks["mask"](variables.params["mask"], variables.stats["mask"], f, train=True)[0]
            for f in (source, driving)
        ]
        masks = [masks[0] + source_mask_shift, masks[1] + driving_mask_shift]
        coarse, _ = system.networks["coarse"](
            variables.params["coarse"], variables.stats["coarse"], small, *masks, train=True
        )
        return jnp.abs(coarse - driving).mean()

    through_source, through_driving = jax.jit(jax.grad(coarse_loss, (0, 1)))(jnp.zeros(()), jnp.zeros(()))
    assert through_source != 0
    assert through_driving != 0


def test_in_the_first_epoch_r_does_not_move_and_its_loss_is_not_counted(setting):
    system, variables, vgg, (source, driving) = setting
    assert system.config.refine.start_epoch == 1
    run = jax.jit(system.gradients, static_argnums=6)
    before, after = (run(variables, vgg, source, driving, jax.random.key(0), jnp.int32(step), 10) for step in (9, 10))
    assert before.metrics["loss_mask"] == 0
    assert after.metrics["loss_mask"] > 0
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(before.grads["refine"]))
    assert all(
        np.array_equal(*pair)
        for pair in zip(*map(jax.tree.leaves, (before.stats["refine"], variables.stats["refine"])), strict=True)
    )
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(after.grads["refine"]))


def test_the_optimiser_of_r_begins_with_fresh_moments_after_the_first_epoch(setting):
    system, variables, *_ = setting
    tx = system.optimizer(2)
    state = jax.jit(tx.init)(variables.params)
    ones, update = jax.tree.map(jnp.ones_like, variables.params), jax.jit(tx.update)
    moved = []
    for _ in range(3):
        updates, state = update(ones, state, variables.params)
        moved.append({name: float(jnp.abs(jax.tree.leaves(tree)[0]).max()) for name, tree in updates.items()})
    assert [step["refine"] for step in moved[:2]] == [0, 0]
    # Adam's first step is the learning rate, whatever the gradient's size.
    assert moved[2]["refine"] == pytest.approx(system.config.optim.learning_rate, rel=1e-3)
    assert moved[0]["mask"] == pytest.approx(
        system.config.optim.learning_rate * system.config.optim.mask_lr_multiplier, rel=1e-3
    )


def test_the_learning_rate_falls_tenfold_after_epochs_60_and_90():
    from configs import taichi

    optim = taichi.get_config().optim
    rates = [float(learning_rate(epoch * 7, 7, optim)) for epoch in (0, 59, 60, 89, 90)]
    np.testing.assert_allclose(rates, [2e-4, 2e-4, 2e-5, 2e-5, 2e-6], rtol=1e-5)
    assert (optim.beta1, optim.beta2, optim.epochs) == (0.5, 0.9, 100)
    assert taichi.get_config("released").optim.beta2 == 0.999


def test_r_learns_from_several_perturbations_of_each_mask(setting):
    _, variables, vgg, (source, driving) = setting
    config = smallest_config()
    config.perturb.draws = 3
    system = build(config)
    seen = []

    def watched(*inputs, **rest):
        seen.append([one.shape[0] for one in inputs[2:]])
        return refine(*inputs, **rest)

    refine, system.networks["refine"] = system.networks["refine"], watched
    losses, _, outputs = jax.eval_shape(
        lambda key: system.losses(variables.params, variables.stats, vgg, source, driving, driving, key, True),
        jax.random.key(2),
    )
    assert seen == [[6, 6, 6]]  # D(s), m_s and P_train(m(A(d))) of two pairs
    assert losses["mask"].shape == ()
    assert outputs["perturbed"].shape == outputs["refined"].shape == outputs["driving_mask"].shape
