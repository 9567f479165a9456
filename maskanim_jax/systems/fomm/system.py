"""How does FOMM train, reconstruct and animate?

FOMM's paper, sections 3.1 to 3.4. The networks are named keypoints, generator (with the dense
motion inside) and, in adversarial configs, discriminator, both in variables and in the log.
`losses.py` defines which loss updates which network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from maskanim_jax.nn.functional import FunctionalModule, fold_all
from maskanim_jax.nn.types import PRECISIONS
from maskanim_jax.systems.augmentation import apply_jitter, draw_jitter, flip_pairs, resize_pairs
from maskanim_jax.systems.fomm.config_checks import check, paper_deviations, shape_settings
from maskanim_jax.systems.fomm.discriminator import Discriminator
from maskanim_jax.systems.fomm.generator import Generator
from maskanim_jax.systems.fomm.keypoints import KeypointDetector, Keypoints
from maskanim_jax.systems.fomm.losses import losses
from maskanim_jax.systems.fomm.motion import pose_difference, pose_size, relative
from maskanim_jax.systems.fomm.options import VARIANTS, AnimationOptions, parse_options
from maskanim_jax.systems.fomm.visualization import draw_keypoints, draw_motion
from maskanim_jax.systems.interface import Gradients, Outputs, PyTree, Variables
from maskanim_jax.systems.optimizers import adam_by_network, learning_rate

COLLAPSED = 0.01
"""Keypoints whose deviation from their mean is below this (the frame is 2 wide) have collapsed to a
point.
"""
STILL = 0.001
"""Keypoints that move less than this between two frames of a clip, an eighth of a pixel of 256,
carry no motion.
"""
FAR = 0.3
"""Distance of the source's and the first driving frame's pose, in object sizes, above which
`warnings` warns.
"""


class FirstOrderMotion:
    """The system of the FOMM paper; `maskanim_jax.systems.interface` documents the methods."""

    name = "fomm"
    result = "prediction"
    mask_output = None
    variants = VARIANTS
    output_names = (
        "source",
        "source_keypoints",
        "driving",
        "driving_keypoints",
        "motion",
        "occlusion",
        "deformed",
        "prediction",
    )

    def __init__(self, config: ConfigDict) -> None:
        check(config)
        self.config = config
        self.frame_size: int = config.frame_size
        dtype, count = PRECISIONS[config.precision], config.keypoints.num_keypoints
        self.networks = {
            "keypoints": FunctionalModule(
                lambda rngs: KeypointDetector(config.keypoints, dtype=dtype, rngs=rngs), remat=config.remat
            ),
            "generator": FunctionalModule(
                lambda rngs: Generator(
                    config.generator, config.motion, count, config.align_corners, dtype=dtype, rngs=rngs
                ),
                remat=config.remat,
            ),
        }
        if config.discriminator.enabled:
            self.networks["discriminator"] = FunctionalModule(
                lambda rngs: Discriminator(config.discriminator, count, dtype=dtype, rngs=rngs), remat=config.remat
            )

    # -- learning ------------------------------------------------------------------------------------------------------------------

    def init(self, key: jax.Array) -> Variables:
        keys = jax.random.split(key, len(self.networks))
        fresh = {name: network.init(key) for (name, network), key in zip(self.networks.items(), keys, strict=True)}
        return Variables(
            {name: params for name, (params, _) in fresh.items()}, {name: stats for name, (_, stats) in fresh.items()}
        )

    def optimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        return adam_by_network(self.config.optim, steps_per_epoch, dict.fromkeys(self.networks, 1.0), {})

    def learning_rates(self, step: int, steps_per_epoch: int) -> dict[str, float]:
        return dict.fromkeys(self.networks, float(learning_rate(step, steps_per_epoch, self.config.optim)))

    def augment(self, source: jax.Array, driving: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Augments raw pairs to s and d with shared flips, resize, crop and colour jitter, as
        configured.
        """
        data = self.config.data
        flip_key, resize_key, jitter_key = jax.random.split(key, 3)
        source, driving = flip_pairs(flip_key, source, driving, data)
        if (data.resize_low, data.resize_high) != (1, 1):
            source, driving = resize_pairs(resize_key, source, driving, data)
        jitter = draw_jitter(jitter_key, source.shape[0], data)
        return apply_jitter(source, jitter), apply_jitter(driving, jitter)

    def gradients(
        self,
        variables: Variables,
        frozen: PyTree,
        source: jax.Array,
        driving: jax.Array,
        key: jax.Array,
        step: jax.Array,
        steps_per_epoch: int,
    ) -> Gradients:
        del step, steps_per_epoch  # every loss counts from the first step on
        augment_key, warp_key = jax.random.split(key)
        source, driving = self.augment(source, driving, augment_key)

        def total(params: dict[str, PyTree]) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, PyTree], Any]]:
            found, stats, seen = losses(self, params, variables.stats, frozen, source, driving, driving, warp_key)
            return sum(found.values(), jnp.float32(0)), (found, stats, seen)

        (loss, (found, stats, seen)), grads = jax.value_and_grad(total, has_aux=True)(variables.params)
        # The discriminator's own loss is not part of the total that the other networks minimise.
        metrics = {
            "loss": loss - found.get("discriminator", 0),
            **{f"loss_{name}": value for name, value in found.items()},
        }
        metrics |= keypoint_figures(seen["keypoints_source"]["value"], seen["keypoints_driving"]["value"])
        metrics["prediction_l1"] = jnp.abs(seen["prediction"] - driving).mean()
        metrics["source_l1"] = jnp.abs(source - driving).mean()
        return Gradients(grads, stats, metrics)

    def shape_settings(self) -> dict[str, Any]:
        return shape_settings(self.config)

    def paper_deviations(self) -> list[str]:
        return paper_deviations(self.config)

    def collapse_warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Warnings for the log when keypoints have collapsed."""
        if metrics["keypoint_spread"] < COLLAPSED:
            return [f"all keypoints lie on one spot (deviation {metrics['keypoint_spread']:.4f}): they have collapsed"]
        if metrics["keypoint_motion"] < STILL:
            return [
                f"keypoints do not move between source and driver (by {metrics['keypoint_motion']:.5f}): they carry no motion"
            ]
        return []

    # -- using -------------------------------------------------------------------------------------------------------------------------

    def _run(self, variables: Variables, name: str, *inputs: Any) -> Any:
        return self.networks[name](variables.params[name], variables.stats[name], *inputs, train=False)[0]

    def _draw(
        self,
        variables: Variables,
        source: jax.Array,
        driving: jax.Array,
        kp_source: Keypoints,
        kp_driving: Keypoints,
        wanted: Keypoints,
    ) -> Outputs:
        """All outputs: the source (N or 1) in the pose of `wanted`; `kp_driving` are the driver's
        own keypoints.
        """
        made = self._run(variables, "generator", source, kp_source, wanted)
        side = made["deformation"].shape[:3]
        outputs = {
            "source": source,
            "source_keypoints": draw_keypoints(source, kp_source["value"]),
            "driving": driving,
            "driving_keypoints": draw_keypoints(driving, kp_driving["value"]),
            "motion": draw_motion(made["deformation"]),
            "occlusion": made.get("occlusion", jnp.ones((*side, 1))),
            "deformed": made["deformed"],
            "prediction": made["prediction"],
        }
        return {name: jnp.broadcast_to(picture, (side[0], *picture.shape[1:])) for name, picture in outputs.items()}

    def reconstruct(self, variables: Variables, source: jax.Array, driving: jax.Array) -> Outputs:
        kp_source, kp_driving = (self._run(variables, "keypoints", frames) for frames in (source, driving))
        return self._draw(variables, source, driving, kp_source, kp_driving, kp_driving)

    def outputs(self, variables: Variables, source: jax.Array, driving: jax.Array, key: jax.Array) -> Outputs:
        del key  # nothing is random
        return self.reconstruct(variables, source, driving)

    def for_inference(self, variables: Variables) -> Variables:
        return Variables(*fold_all(self.networks, variables.params, variables.stats))

    def animation_options(self, given: Mapping[str, str]) -> AnimationOptions:
        return parse_options(given)

    def encode_source(self, variables: Variables, source: jax.Array, first_driving: jax.Array) -> PyTree:
        """The source, its keypoints, those of the first driving frame, and the ratio of the two
        pose sizes.
        """
        kp_source, first = (self._run(variables, "keypoints", frames) for frames in (source, first_driving))
        size, first_size = pose_size(kp_source["value"]), pose_size(first["value"])
        return {"source": source, "keypoints": kp_source, "first": first, "scale": size / first_size}

    def pose(self, variables: Variables, driving: jax.Array) -> PyTree:
        return self._run(variables, "keypoints", driving)

    def animate(
        self, variables: Variables, source_state: PyTree, driving: jax.Array, options: Any, pose: PyTree | None = None
    ) -> Outputs:
        kp_driving = self.pose(variables, driving) if pose is None else pose
        wanted = kp_driving
        if options.motion == "relative":
            scale = source_state["scale"][:, None, None] if options.adapt_scale else 1.0
            wanted = relative(source_state["keypoints"], kp_driving, source_state["first"], scale)
        return self._draw(variables, source_state["source"], driving, source_state["keypoints"], kp_driving, wanted)

    def warnings(self, source_state: PyTree, options: Any) -> list[str]:
        if options.motion != "relative":
            return []
        distance = float(pose_difference(source_state["keypoints"]["value"], source_state["first"]["value"])[0])
        if distance < FAR:
            return []
        return [
            f"source and first driving frame differ much in pose ({distance:.2f} of the object's size), but relative motion needs them "
            "alike: try --find_best_frame, another driving video, or --motion=absolute"
        ]

    def pose_distance(self, variables: Variables, source: jax.Array, driving: jax.Array) -> jax.Array:
        """Root mean square distance of keypoints that are centred and divided by the square root of
        their hull's area.
        """
        points = (self._run(variables, "keypoints", frames)["value"] for frames in (source, driving))
        return pose_difference(next(points), next(points))


def keypoint_figures(source: jax.Array, driving: jax.Array) -> dict[str, jax.Array]:
    """Metrics of keypoint collapse: deviation of (N, K, 2) from their mean, and motion; the frame
    is 2 wide.
    """
    points = jnp.stack([source, driving])
    return {
        "keypoint_spread": jnp.sqrt(points.var(2).sum(-1)).mean(),
        "keypoint_motion": jnp.sqrt(jnp.square(source - driving).sum(-1)).mean(),
    }


def build(config: ConfigDict) -> FirstOrderMotion:
    """The system that the config describes. Raises UserError for invalid settings."""
    return FirstOrderMotion(config)
