"""Do both systems match the released implementations on this device?

Weights and frames come from a formula, the expected numbers from the folder of
`benchmarks.recorded`. In float32 with the highest matmul precision they must match. The changes by
the device's default precision and bfloat16 are reported and have loose bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import recorded
from maskanim_jax.nn.resize import bilinear
from maskanim_jax.systems import build

Row = dict[str, Any]
Numbers = dict[str, Any]
PRECISIONS = {
    "float32, highest": ("float32", "highest"),
    "float32, default": ("float32", None),
    "bfloat16": ("bfloat16", None),
}
"""Row name: `config.precision` and JAX's matmul precision."""
BOUNDS = {"float32, highest": (1e-3, 1e-3, 1e-2), "float32, default": (2e-2, 1e-2, 5e-2), "bfloat16": (5e-2, 2e-2, 0.1)}
"""Bounds of the differences: of values of pictures and keypoints (the largest one, or the mean one
at lower precision), and the relative ones of losses and gradient norms.
"""


def compared(name: str, found: Numbers, expected: Numbers) -> Row:
    """Differences of pictures (largest and mean), relative differences of losses and gradient
    norms, and whether they are within BOUNDS.
    """
    picture, loss, norm = BOUNDS[name]
    row: Row = {"largest": {}, "mean": {}, "losses": {}, "norms": {}}
    for key, value in expected["pictures"].items():
        difference = np.abs(np.asarray(found["pictures"][key], np.float32) - value.astype(np.float32))
        row["largest"][key], row["mean"][key] = float(difference.max()), float(difference.mean())
    for kind in ("losses", "norms"):
        for key, value in expected[kind].items():
            row[kind][key] = abs(float(found[kind][key]) / value - 1)
    judged = row["largest" if name == "float32, highest" else "mean"]
    within = [
        all(value <= most for value in values.values())  # fails for NaN
        for values, most in ((judged, picture), (row["losses"], loss), (row["norms"], norm))
    ]
    return row | {"passed": all(within)}


def _norm(tree: Any) -> jax.Array:
    return jnp.sqrt(sum(jnp.square(leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(tree)))


class PerturbedMasks:
    """Masks, the animation path and one training step against `pm_eval` and `pm_train`."""

    name = "perturbed_masks"
    LOSSES: ClassVar = {"mask": "mask_correction", "coarse": "perceptual1", "fine": "perceptual2"}
    NETWORKS: ClassVar = {"mask": "m", "refine": "r", "coarse": "l", "fine": "h"}

    def __init__(self, folder: Path) -> None:
        from configs import taichi
        from maskanim_jax.conversion.perturbed_masks import to_variables

        self.config = taichi.get_config("released")
        tensors = recorded.tensors(recorded.keys(folder, "pm"), ("generator", "mask_generator"))
        self.variables = to_variables(tensors, self.config)
        stored, trained = recorded.arrays(folder, "pm_eval"), recorded.scalars(folder, "pm_train")
        self.perturbed = stored["perturbed"]
        self.expected: Numbers = {
            "pictures": {
                "mask": np.concatenate([stored["mask_source"], stored["mask_driving"]]),
                "refined": stored["refined_256"],
                "coarse": stored["coarse"],
                "fine": stored["fine"],
            },
            "losses": {ours: trained["losses"][theirs] for ours, theirs in self.LOSSES.items()},
            "norms": {ours: trained["grad_norm"]["total"][theirs] for ours, theirs in self.NETWORKS.items()},
        }

    def pictures(self, system: Any, variables: Any, source: jax.Array, driving: jax.Array) -> Numbers:
        """Masks of both frames, then r, c and f from the recorded perturbed mask."""
        source_mask, driving_mask = (system._run(variables, "mask", frames) for frames in (source, driving))
        small = bilinear(source, system.mask_size)
        refined = system._run(variables, "refine", small, source_mask, jnp.asarray(self.perturbed))
        coarse, fine = system._generate(variables, source, small, source_mask, refined)
        masks = jnp.concatenate([source_mask, driving_mask])[:, 3:-3, 3:-3]
        return {"mask": masks, "refined": bilinear(refined, system.frame_size), "coarse": coarse, "fine": fine}

    def losses(
        self, system: Any, variables: Any, vgg: Numbers, source: jax.Array, driving: jax.Array
    ) -> tuple[Numbers, Numbers]:
        """Losses and gradient norms of a step in which the recorded stand-in replaces P_train:
        small values cut off, times 0.9.
        """
        from maskanim_jax.systems.perturbed_masks import system as module

        def total(params: Any) -> tuple[Any, Any]:
            found = system.losses(params, variables.stats, vgg, source, driving, driving, jax.random.key(0), True)[0]
            return sum(found.values()), found

        original = module.p_train
        module.p_train = lambda mask, *_: jnp.where(mask <= 60 / 255, 0.0, jax.lax.stop_gradient(mask)) * 0.9
        try:
            (_, found), grads = jax.value_and_grad(total, has_aux=True)(variables.params)
        finally:
            module.p_train = original
        return found, {name: _norm(tree) for name, tree in grads.items()}


class Fomm:
    """Keypoints, dense motion, the frame and one training step against
    `fomm_eval` and `fomm_train`.
    """

    name = "fomm"
    LOSSES: ClassVar = {
        "perceptual": "perceptual",
        "gan": "gen_gan",
        "feature_matching": "feature_matching",
        "equivariance_value": "equivariance_value",
        "equivariance_jacobian": "equivariance_jacobian",
    }
    NETWORKS: ClassVar = {"keypoints": "kp_detector", "generator": "generator"}

    def __init__(self, folder: Path) -> None:
        from configs import fomm_voxceleb_adv
        from maskanim_jax.conversion.fomm import to_variables

        self.config = fomm_voxceleb_adv.get_config()
        self.config.align_corners = False
        tensors = recorded.tensors(recorded.keys(folder, "fomm"), ("generator", "kp_detector", "discriminator"))
        self.variables = to_variables(tensors, self.config)
        stored, trained = recorded.arrays(folder, "fomm_eval"), recorded.scalars(folder, "fomm_train")
        self.warp = recorded.arrays(folder, "fomm_train")
        self.expected: Numbers = {
            "pictures": {
                "keypoints": np.concatenate([stored["kp_source"], stored["kp_driving"]]),
                "masks": stored["dense_mask"],
                "occlusion": stored["occlusion_map"],
                "prediction": stored["prediction"],
            },
            "losses": {ours: trained["losses"][theirs] for ours, theirs in self.LOSSES.items()},
            "norms": {ours: trained["grad_norm"]["perceptual"][theirs] for ours, theirs in self.NETWORKS.items()},
        }

    def pictures(self, system: Any, variables: Any, source: jax.Array, driving: jax.Array) -> Numbers:
        """Keypoints of both frames, then the generator's outputs for absolute motion."""
        found = [system._run(variables, "keypoints", frames) for frames in (source, driving)]
        made = system._run(variables, "generator", source, *found)
        keypoints = jnp.concatenate([each["value"] for each in found])
        return {"keypoints": keypoints, **{name: made[name] for name in ("masks", "occlusion", "prediction")}}

    def losses(
        self, system: Any, variables: Any, vgg: Numbers, source: jax.Array, driving: jax.Array
    ) -> tuple[Numbers, Numbers]:
        """Losses of a step with the recorded warp, and gradient norms of
        the perceptual loss alone.
        """
        from maskanim_jax.systems.fomm.equivariance import Warp, control_grid
        from maskanim_jax.systems.fomm.losses import generator_losses

        warp = Warp(jnp.asarray(self.warp["theta"]), control_grid(5), jnp.asarray(self.warp["control_params"]))

        def perceptual(params: Any) -> tuple[Any, Any]:
            critic, key = params["discriminator"], jax.random.key(0)
            found = generator_losses(system, params, critic, variables.stats, vgg, source, driving, driving, key, warp)[
                0
            ]
            return found["perceptual"], found

        (_, found), grads = jax.value_and_grad(perceptual, has_aux=True)(variables.params)
        return found, {name: _norm(grads[name]) for name in self.NETWORKS}


CHECKS: dict[str, Callable[[Path], Any]] = {"perturbed_masks": PerturbedMasks, "fomm": Fomm}


def parity(folder: Path, name: str) -> Iterator[Row]:
    """A row per precision; `passed` says whether it is within its bounds."""
    check = CHECKS[name](folder)
    source, driving = (jnp.asarray(frames) for frames in recorded.frames(folder))
    variables = jax.tree.map(jnp.asarray, check.variables)
    vgg = {key: jnp.asarray(value) for key, value in recorded.vgg(folder).items()}
    for told, (precision, matmuls) in PRECISIONS.items():
        config = check.config.copy_and_resolve_references()
        config.precision = precision
        system = build(config)

        def everything(variables: Any, vgg: Any, source: Any, driving: Any, system: Any = system) -> Any:
            losses, norms = check.losses(system, variables, vgg, source, driving)
            return {
                "pictures": check.pictures(system, variables, source, driving),
                "losses": {key: losses[key] for key in check.expected["losses"]},
                "norms": norms,
            }

        with jax.default_matmul_precision(matmuls):
            found = jax.device_get(jax.jit(everything)(variables, vgg, source, driving))
        yield {"system": name, "precision": told} | compared(told, found, check.expected)
