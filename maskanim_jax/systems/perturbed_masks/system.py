"""How does Perturbed Masks train, reconstruct and animate?

Paper, Eq. 1 to 8. The networks are named mask (m), refine (r), coarse (l) and fine (h), both in
variables and in the log. S is the side of the frame, L that of the mask. `losses` defines where
gradients stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.lax import stop_gradient
from ml_collections import ConfigDict

from maskanim_jax.losses.perceptual import perceptual_pyramid
from maskanim_jax.nn.functional import FunctionalModule, fold_all
from maskanim_jax.nn.resize import bilinear
from maskanim_jax.nn.types import PRECISIONS
from maskanim_jax.systems.augmentation import apply_jitter, draw_jitter, flip_pairs, random_negative
from maskanim_jax.systems.interface import Gradients, Outputs, PyTree, Variables
from maskanim_jax.systems.optimizers import adam_by_network, learning_rate
from maskanim_jax.systems.perturbed_masks.config_checks import advice, check, paper_deviations, shape_settings
from maskanim_jax.systems.perturbed_masks.networks import (
    TEMPERATURE,
    CoarseGenerator,
    FineGenerator,
    MaskGenerator,
    MaskRefiner,
    temperature,
)
from maskanim_jax.systems.perturbed_masks.options import VARIANTS, AnimationOptions, parse_options
from maskanim_jax.systems.perturbed_masks.perturbations import p_test, p_train

DEAD_SPACE = 0.01
"""Masks with a smaller deviation over space have collapsed."""
DEAD_TIME = 0.005
"""Masks with a smaller deviation between two frames of a clip encode no pose."""


class PerturbedMasks:
    """The system of the paper; `maskanim_jax.systems.interface` documents the methods."""

    name = "perturbed_masks"
    result = "fine"
    mask_output = "driving_mask"
    variants = VARIANTS
    output_names = ("source", "source_mask", "driving", "driving_mask", "perturbed", "refined", "coarse", "fine")

    def __init__(self, config: ConfigDict) -> None:
        check(config)
        self.config = config
        self.frame_size: int = config.frame_size
        self.mask_size: int = config.mask.size
        dtype = PRECISIONS[config.precision]
        ups = (self.frame_size // self.mask_size).bit_length() - 1
        makers: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {
            "mask": lambda rngs: MaskGenerator(config.mask, dtype=dtype, rngs=rngs),
            "refine": lambda rngs: MaskRefiner(config.refine, dtype=dtype, rngs=rngs),
            "coarse": lambda rngs: CoarseGenerator(config.coarse, ups, dtype=dtype, rngs=rngs),
            "fine": lambda rngs: FineGenerator(config.fine, dtype=dtype, rngs=rngs),
        }
        self.networks = {name: FunctionalModule(make, remat=config.remat, name=name) for name, make in makers.items()}

    # -- learning ------------------------------------------------------------------------------------------------------------------

    def init(self, key: jax.Array) -> Variables:
        keys = jax.random.split(key, len(self.networks))
        fresh = {name: network.init(key) for (name, network), key in zip(self.networks.items(), keys, strict=True)}
        return Variables(
            {name: params for name, (params, _) in fresh.items()}, {name: stats for name, (_, stats) in fresh.items()}
        )

    def optimizer(self, steps_per_epoch: int) -> optax.GradientTransformation:
        starts = {"refine": self.config.refine.start_epoch * steps_per_epoch}
        return adam_by_network(self.config.optim, steps_per_epoch, self._rate_factors(), starts)

    def _rate_factors(self) -> dict[str, float]:
        return {name: self.config.optim.mask_lr_multiplier if name == "mask" else 1.0 for name in self.networks}

    def learning_rates(self, step: int, steps_per_epoch: int) -> dict[str, float]:
        rate = float(learning_rate(step, steps_per_epoch, self.config.optim))
        return {name: rate * factor for name, factor in self._rate_factors().items()}

    def augment(self, source: jax.Array, driving: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Augments raw pairs to (s, d, A(d)): flips, colour jitter shared by s and d, and the
        driver's own jitter A.
        """
        data = self.config.data
        flip_key, shared_key, own_key, negative_key = jax.random.split(key, 4)
        source, driving = flip_pairs(flip_key, source, driving, data)
        shared = draw_jitter(shared_key, source.shape[0], data)
        source, target = apply_jitter(source, shared), apply_jitter(driving, shared)
        augmented = apply_jitter(target, draw_jitter(own_key, source.shape[0], data, data.driving_jitter_scale))
        if data.driving_invert_prob:
            augmented = random_negative(negative_key, augmented, data.driving_invert_prob)
        return source, target, augmented

    def losses(
        self,
        params: Mapping[str, PyTree],
        stats: Mapping[str, PyTree],
        vgg: Mapping[str, jax.Array],
        source: jax.Array,
        target: jax.Array,
        augmented: jax.Array,
        key: jax.Array,
        refining: jax.Array | bool,
    ) -> tuple[dict[str, jax.Array], dict[str, PyTree], dict[str, jax.Array]]:
        """The weighted losses of s, d and A(d) (N, S, S, 3): ({"mask", "coarse", "fine"}, new
        statistics, masks and frames).

        Which network each loss updates (section 3.1, Loss Terms): L_mask (Eq. 8) updates r alone;
        the reconstruction of c (Eq. 6) updates l and m, through both masks; the reconstruction of f
        (Eq. 7) updates h alone. `refining` False leaves r as it is and L_mask at 0.
        """
        config, stats = self.config, dict(stats)

        def run(name: str, *inputs: jax.Array) -> jax.Array:
            output, stats[name] = self.networks[name](params[name], stats[name], *inputs, train=True)
            return output

        # m is called twice, so that source and driving batches have separate batch statistics.
        source_mask, driving_mask = run("mask", source), run("mask", augmented)
        small = bilinear(source, self.mask_size)
        coarse = run("coarse", small, source_mask, driving_mask)
        wide_source_mask, wide_driving_mask = (
            stop_gradient(bilinear(mask, self.frame_size)) for mask in (source_mask, driving_mask)
        )
        fine = run("fine", source, wide_source_mask, stop_gradient(coarse), wide_driving_mask)

        draws = config.perturb.draws
        several = [small, stop_gradient(source_mask), stop_gradient(driving_mask)]
        if draws > 1:
            several = [jnp.repeat(x, draws, 0) for x in several]
        perturbed = p_train(several[2], key, config.perturb)
        # Before r starts, its result is discarded; a conditional would make XLA's convs slow in all later epochs.
        before = stats["refine"]
        refined = run("refine", several[0], several[1], perturbed)
        stats["refine"] = jax.tree.map(lambda new, old: jnp.where(refining, new, old), stats["refine"], before)
        correction = jnp.where(refining, jnp.abs(refined - several[2]).mean(), 0.0)

        scales, precision = (config.loss.coarse_pyramid_sizes, config.loss.pyramid_sizes), PRECISIONS[config.precision]
        far = perceptual_pyramid(vgg, [coarse, fine], target, scales, config.loss.vgg_layers, precision, config.remat)
        losses = {
            "mask": config.loss.mask * correction,
            "coarse": config.loss.perceptual * far[0],
            "fine": config.loss.perceptual * far[1],
        }
        if config.mask.area_weight:
            # Not in the paper: of a mask and its negative, training prefers the one with the smaller area.
            covered = (
                jax.nn.relu(mask.mean((1, 2, 3)) - config.mask.area_margin).mean()
                for mask in (source_mask, driving_mask)
            )
            losses["area"] = config.mask.area_weight * sum(covered) / 2
        outputs = {
            "source": source,
            "source_mask": source_mask,
            "driving": target,
            "driving_mask": driving_mask,
            "perturbed": perturbed[::draws],
            "refined": refined[::draws],
            "coarse": coarse,
            "fine": fine,
        }
        return losses, stats, outputs

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
        augment_key, perturb_key = jax.random.split(key)
        with jax.named_scope("augment"):
            source, target, augmented = self.augment(source, driving, augment_key)
        refining = step >= self.config.refine.start_epoch * steps_per_epoch
        stats_now = {**variables.stats}
        for name in self._cooling():
            stats_now[name] = {**stats_now[name], TEMPERATURE: temperature(step, self.config[name])}

        def total(
            params: dict[str, PyTree],
        ) -> tuple[jax.Array, tuple[dict[str, jax.Array], dict[str, PyTree], dict[str, jax.Array]]]:
            losses, stats, outputs = self.losses(
                params, stats_now, frozen, source, target, augmented, perturb_key, refining
            )
            return sum(losses.values(), jnp.float32(0)), (losses, stats, outputs)

        (loss, (losses, stats, outputs)), grads = jax.value_and_grad(total, has_aux=True)(variables.params)
        masks = jnp.stack([outputs["source_mask"], outputs["driving_mask"]])
        metrics = {"loss": loss, **{f"loss_{name}": value for name, value in losses.items()}, **mask_figures(masks)}
        metrics |= {f"temperature_{name}": stats_now[name][TEMPERATURE] for name in self._cooling()}
        metrics["fine_l1"] = jnp.abs(outputs["fine"] - target).mean()
        metrics["source_l1"] = jnp.abs(source - target).mean()
        return Gradients(grads, stats, metrics)

    def _cooling(self) -> list[str]:
        """Networks whose temperature changes with the step."""
        return [name for name in ("mask", "refine") if self.config[name].temperature_steps]

    def shape_settings(self) -> dict[str, Any]:
        return shape_settings(self.config)

    def paper_deviations(self) -> list[str]:
        return paper_deviations(self.config)

    def collapse_warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Warnings for the log about mask collapse, with the config that
        avoids it where one is known.
        """
        help = advice(self.config)
        if metrics["mask_space"] < DEAD_SPACE:
            return [
                f"the mask is constant over the picture (mean {metrics['mask_mean']:.3f}, deviation {metrics['mask_space']:.4f}): collapsed{help}"
            ]
        if metrics["mask_time"] < DEAD_TIME:
            return [
                f"the mask hardly changes between frames (deviation over time {metrics['mask_time']:.4f}): it carries no pose{help}"
            ]
        return []

    # -- using -------------------------------------------------------------------------------------------------------------------------

    def _run(self, variables: Variables, name: str, *inputs: jax.Array) -> jax.Array:
        return self.networks[name](variables.params[name], variables.stats[name], *inputs, train=False)[0]

    def _generate(
        self, variables: Variables, source: jax.Array, small: jax.Array, source_mask: jax.Array, driving_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """c and f (Eq. 3 and 4) in evaluation mode."""
        coarse = self._run(variables, "coarse", small, source_mask, driving_mask)
        wide = (bilinear(mask, self.frame_size) for mask in (source_mask, driving_mask))
        return coarse, self._run(variables, "fine", source, next(wide), coarse, next(wide))

    def reconstruct(self, variables: Variables, source: jax.Array, driving: jax.Array) -> Outputs:
        source_mask, driving_mask = self._run(variables, "mask", source), self._run(variables, "mask", driving)
        coarse, fine = self._generate(variables, source, bilinear(source, self.mask_size), source_mask, driving_mask)
        return {
            "source": source,
            "source_mask": source_mask,
            "driving": driving,
            "driving_mask": driving_mask,
            "coarse": coarse,
            "fine": fine,
        }

    def outputs(self, variables: Variables, source: jax.Array, driving: jax.Array, key: jax.Array) -> Outputs:
        outputs = self.reconstruct(variables, source, driving)
        perturbed = p_train(outputs["driving_mask"], key, self.config.perturb)
        small = bilinear(source, self.mask_size)
        return {
            **outputs,
            "perturbed": perturbed,
            "refined": self._run(variables, "refine", small, outputs["source_mask"], perturbed),
        }

    def for_inference(self, variables: Variables) -> Variables:
        return Variables(*fold_all(self.networks, variables.params, variables.stats))

    def animation_options(self, given: Mapping[str, str]) -> AnimationOptions:
        return parse_options(given, self.config.perturb)

    def encode_source(self, variables: Variables, source: jax.Array, first_driving: jax.Array) -> PyTree:
        del first_driving  # masks are absolute: no reference frame is needed
        return {
            "source": source,
            "small": bilinear(source, self.mask_size),
            "mask": self._run(variables, "mask", source),
        }

    def pose(self, variables: Variables, driving: jax.Array) -> PyTree:
        return self._run(variables, "mask", driving)

    def animate(
        self, variables: Variables, source_state: PyTree, driving: jax.Array, options: Any, pose: PyTree | None = None
    ) -> Outputs:
        source, small, source_mask = (
            jnp.broadcast_to(source_state[name], (driving.shape[0], *source_state[name].shape[1:]))
            for name in ("source", "small", "mask")
        )
        mask = self.pose(variables, driving) if pose is None else pose
        perturbed = (
            mask if options.ablation in ("no_pert", "no_id") else p_test(mask, options.threshold, options.mask_scale)
        )
        refined = (
            perturbed
            if options.ablation in ("no_ref", "no_id")
            else self._run(variables, "refine", small, source_mask, perturbed)
        )
        coarse, fine = self._generate(variables, source, small, source_mask, refined)
        return {
            "source": source,
            "source_mask": source_mask,
            "driving": driving,
            "driving_mask": mask,
            "perturbed": perturbed,
            "refined": refined,
            "coarse": coarse,
            "fine": fine,
        }

    def warnings(self, source_state: PyTree, options: Any) -> list[str]:
        return []  # masks are absolute: source and first driving frame need not be alike

    def pose_distance(self, variables: Variables, source: jax.Array, driving: jax.Array) -> jax.Array:
        """Mean absolute difference of masks."""
        masks = (self._run(variables, "mask", frames) for frames in (source, driving))
        return jnp.abs(next(masks) - next(masks)).mean((1, 2, 3))


def mask_figures(masks: jax.Array) -> dict[str, jax.Array]:
    """Metrics of mask collapse: mean, deviation over space, deviation over time.

    `masks` (T, N, L, L, 1) holds T frames of each of N clips.
    """
    return {
        "mask_mean": masks.mean(),
        "mask_space": masks.std((2, 3)).mean(),
        "mask_time": jnp.sqrt(masks.var(0).mean()),
    }


def build(config: ConfigDict) -> PerturbedMasks:
    """The system that the config describes. Raises UserError for invalid settings."""
    return PerturbedMasks(config)
