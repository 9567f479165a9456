"""What is FOMM's loss, and which network does each term update?

Paper, section 3.3, and the adversarial variant of the released code. Losses are returned weighted;
their sum is differentiated once for all networks. All terms except the discriminator's own loss
update the keypoint detector and the generator; only that loss updates the discriminator. The
discriminator sees the frame generated before this step's update, as in the two steps of the
released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from ml_collections import ConfigDict

from maskanim_jax.losses.perceptual import perceptual_pyramid
from maskanim_jax.nn.functional import FunctionalModule
from maskanim_jax.nn.types import PRECISIONS
from maskanim_jax.systems.fomm.equivariance import Warp, draw_warp, jacobian_loss, value_loss, warp_frames
from maskanim_jax.systems.interface import PyTree

Losses = dict[str, jax.Array]
"""Weighted losses by name: perceptual, equivariance_value, equivariance_jacobian, gan,
feature_matching, discriminator.
"""


class Trained(Protocol):
    """The system's functions that the losses call."""

    config: ConfigDict
    networks: dict[str, FunctionalModule]


def losses(
    system: Trained,
    params: Mapping[str, PyTree],
    stats: Mapping[str, PyTree],
    vgg: Mapping[str, jax.Array],
    source: jax.Array,
    target: jax.Array,
    driving: jax.Array,
    key: jax.Array,
    warp: Warp | None = None,
) -> tuple[Losses, dict[str, PyTree], dict[str, Any]]:
    """All losses of a step; their sum's gradient is each network's own.

    `source`, `driving` (the detector's input) and `target` (the ground truth) are (N, S, S, 3)
    float32 in [0, 1]. `warp` replaces the random warp. Returns the losses that the config enables,
    the new statistics and the intermediate results listed in `generator_losses`.
    """
    adversarial = "discriminator" in system.networks
    critic = stop_gradient(params["discriminator"]) if adversarial else None
    found, after, seen = generator_losses(system, params, critic, stats, vgg, source, target, driving, key, warp)
    if adversarial:
        found["discriminator"], after["discriminator"] = discriminator_loss(
            system,
            params["discriminator"],
            after["discriminator"],
            target,
            seen["prediction"],
            seen["keypoints_driving"],
        )
    return found, {name: after[name] for name in stats}, seen  # networks without statistics may be absent


def generator_losses(
    system: Trained,
    params: Mapping[str, PyTree],
    critic: PyTree | None,
    stats: Mapping[str, PyTree],
    vgg: Mapping[str, jax.Array],
    source: jax.Array,
    target: jax.Array,
    driving: jax.Array,
    key: jax.Array,
    warp: Warp | None = None,
) -> tuple[Losses, dict[str, PyTree], dict[str, Any]]:
    """The losses of keypoint detector and generator; `critic` holds the discriminator's parameters.

    Arguments and results are those of `losses`. The third result contains the generator's outputs
    ("prediction" and others), "keypoints_source", "keypoints_driving" and, with an equivariance
    loss, "warped" (N, S, S, 3) and "keypoints_warped".
    """
    config, after = system.config, dict(stats)

    def run(name: str, *inputs: Any) -> Any:
        output, after[name] = system.networks[name](params[name], after[name], *inputs, train=True)
        return output

    # A call for each batch of frames, so that each has its own batch statistics.
    of_source, of_driving = run("keypoints", source), run("keypoints", driving)
    seen = {**run("generator", source, of_source, of_driving)}
    seen |= {"keypoints_source": of_source, "keypoints_driving": of_driving}
    prediction = seen["prediction"]

    weights = config.loss
    found = {}
    if weights.perceptual:
        precision = PRECISIONS[config.precision]
        far = perceptual_pyramid(
            vgg, [prediction], target, [weights.pyramid_sizes], weights.vgg_layers, precision, config.remat
        )
        found["perceptual"] = weights.perceptual * far[0]
    if critic is not None:
        adversarial, after["discriminator"] = adversarial_losses(
            system, critic, after.get("discriminator", {}), target, prediction, of_driving
        )
        found |= adversarial
    by_jacobian = weights.equivariance_jacobian and "jacobian" in of_driving
    if weights.equivariance_value or by_jacobian:
        if warp is None:
            warp = draw_warp(key, driving.shape[0], config.equivariance)
        seen["warped"] = stop_gradient(warp_frames(warp, driving, align_corners=config.align_corners))
        seen["keypoints_warped"] = of_warped = run("keypoints", seen["warped"])
        if weights.equivariance_value:
            away = value_loss(warp, of_driving["value"], of_warped["value"])
            found["equivariance_value"] = weights.equivariance_value * away
        if by_jacobian:
            away = jacobian_loss(warp, of_driving["jacobian"], of_warped["value"], of_warped["jacobian"])
            found["equivariance_jacobian"] = weights.equivariance_jacobian * away
    return found, after, seen


def adversarial_losses(
    system: Trained,
    critic: PyTree,
    stats: PyTree,
    target: jax.Array,
    prediction: jax.Array,
    keypoints: Mapping[str, jax.Array],
) -> tuple[Losses, PyTree]:
    """Least-squares GAN loss of `prediction` ("gan"), and feature matching
    between it and `target`.
    """
    weights, discriminate = system.config.loss, system.networks["discriminator"]
    made, stats = discriminate(critic, stats, prediction, keypoints["value"], train=True)
    real, stats = discriminate(critic, stats, target, keypoints["value"], train=True)
    differences = [jnp.abs(a - b).mean() for a, b in zip(real["features"], made["features"], strict=True)]
    return {
        "gan": weights.adversarial * jnp.square(1 - made["prediction"]).mean(),
        "feature_matching": weights.feature_matching * sum(differences, jnp.float32(0)),
    }, stats


def discriminator_loss(
    system: Trained,
    critic: PyTree,
    stats: PyTree,
    target: jax.Array,
    prediction: jax.Array,
    keypoints: Mapping[str, jax.Array],
) -> tuple[jax.Array, PyTree]:
    """Least squares, weight 1: `target` is 1, `prediction` is 0; neither the frame nor the
    keypoints get a gradient.
    """
    discriminate = system.networks["discriminator"]
    points = stop_gradient(keypoints["value"])
    real, stats = discriminate(critic, stats, target, points, train=True)
    made, stats = discriminate(critic, stats, stop_gradient(prediction), points, train=True)
    return (jnp.square(1 - real["prediction"]) + jnp.square(made["prediction"])).mean(), stats
