"""What is FOMM's loss, and which network does each of its parts move?

Paper, section 3.3, and the adversarial variant of the released code. Every loss comes weighted, so that their sum is what is
differentiated: once, for all networks. The keypoint detector and the generator are moved by all losses but the discriminator's own, the
discriminator by that one alone; it sees the frame that the generator made before this step's update, as in the released code's two steps.
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
"""Weighted losses by name: perceptual, equivariance_value, equivariance_jacobian, gan, feature_matching, discriminator."""


class Trained(Protocol):
    """What the losses need of the system."""

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

    `source`, `driving` (what the detector sees) and `target` (what is to be made) are (N, S, S, 3) float32 in [0, 1]. `warp` takes the
    place of the random one. Returns the losses that the config asks for, the new statistics, and what was computed on the way: see
    `generator_losses`.
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
    """The losses of keypoint detector and generator, `critic` being the discriminator's parameters; otherwise as `losses`.

    The third value has the generator's outputs ("prediction" and others), "keypoints_source" and "keypoints_driving", and, with an
    equivariance loss, "warped" (N, S, S, 3) and "keypoints_warped".
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
    """Least squares: the discriminator is to call `prediction` real ("gan"), and to see the same in it as in `target`."""
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
    """Least squares, weight 1: `target` is 1, `prediction` is 0; neither the frame nor the keypoints get a gradient."""
    discriminate = system.networks["discriminator"]
    points = stop_gradient(keypoints["value"])
    real, stats = discriminate(critic, stats, target, points, train=True)
    made, stats = discriminate(critic, stats, stop_gradient(prediction), points, train=True)
    return (jnp.square(1 - real["prediction"]) + jnp.square(made["prediction"])).mean(), stats
