"""What limits animation by another identity: the generators, or the mask that r gives them?

`python -m benchmarks.refinement --workdir=puppets` animates validation puppets by others with five
masks: the driver's own, r's, that of r after more training alone with other perturbations
(`--scale`, `--stretch`, `--blur`, `--whole`), and two that only drawn data have: the mask of the
true rendering, and r's when it is given that one. All networks but r stay as they are, so a trial
takes minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from input_pipeline.puppets.dataset import clips_of, render_clip
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.errors import UserError, run_main
from maskanim_jax.evaluation.cross_identity import measure
from maskanim_jax.evaluation.cross_identity_scenes import Scene, choose_pairs, draw_scene
from maskanim_jax.nn.resize import bilinear
from maskanim_jax.systems.perturbed_masks.perturbations import p_test, p_train

SHOWN = ("l1", "iou", "joint_error", "shape_leak")

Refine = Callable[[Any, Any, Any], jax.Array]
"""Maps D(s), m_s and a perturbed mask to the refined mask."""


class Frames(NamedTuple):
    """What r sees of drawn clips, (clips, frames, L, L, channels)."""

    small: np.ndarray
    masks: np.ndarray


def drawn(run: LoadedRun, identities: int, every: int) -> Frames:
    """D(s) and masks of training puppets, every `every`-th frame."""
    system: Any = run.system

    @jax.jit
    def seen(frames: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = frames.astype(jnp.float32) / 255
        return bilinear(values, system.mask_size), system.pose(run.variables, values)

    found = []
    for clip in tqdm(clips_of(run.config.data.puppets, "train")[:identities], desc="masks", unit="clip"):
        frames = [each.frame for number, each in enumerate(render_clip(clip, system.frame_size)) if number % every == 0]
        found.append(jax.device_get(seen(jnp.stack(frames))))
    return Frames(*map(np.stack, zip(*found, strict=True)))


def train(run: LoadedRun, frames: Frames, steps: int, batch: int, rate: float) -> Refine:
    """r after `steps` steps of Eq. 8 with `run.config.perturb`, from the checkpoint's r.

    Adam as in the paper; a cosine from `rate` to zero.
    """
    system: Any = run.system
    network, perturb = system.networks["refine"], run.config.perturb
    params, stats = run.variables.params["refine"], run.variables.stats["refine"]
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps), b1=0.5, b2=0.9)

    @jax.jit
    def step(params: Any, stats: Any, state: Any, seen: Sequence[jax.Array], key: jax.Array) -> Any:
        small, source, driving = seen
        perturbed = p_train(driving, key, perturb)

        def loss(params: Any) -> Any:
            refined, new = network(params, stats, small, source, perturbed, train=True)
            return jnp.abs(refined - driving).mean(), new

        (_, stats), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), stats, state

    rng, state = np.random.default_rng(0), optimizer.init(params)
    for number in tqdm(range(steps), desc="r", unit="step"):
        clips, (sources, drivers) = (
            rng.integers(0, len(frames.small), batch),
            rng.integers(0, frames.small.shape[1], (2, batch)),
        )
        seen = (frames.small[clips, sources], frames.masks[clips, sources], frames.masks[clips, drivers])
        if rng.random() < 0.5:
            seen = tuple(each[:, :, ::-1] for each in seen)
        params, stats, state = step(params, stats, state, seen, jax.random.key(number))
    return jax.jit(lambda *inputs: network(params, stats, *inputs, train=False)[0])


def report(run: LoadedRun, scenes: Sequence[Scene], trained: Refine | None) -> None:
    """Prints a line for each mask: its distance to the mask of the true rendering, and
    the frames' metrics.
    """
    system: Any = run.system
    perturb = run.config.perturb
    mask = jax.jit(lambda frames: system.pose(run.variables, frames))
    network, params, stats = (each["refine"] for each in (system.networks, *run.variables))
    refine: Refine = jax.jit(lambda *inputs: network(params, stats, *inputs, train=False)[0])

    @jax.jit
    def paint(source: jax.Array, source_mask: jax.Array, driving_mask: jax.Array) -> jax.Array:
        small = bilinear(source, system.mask_size)
        return system._generate(run.variables, source, small, source_mask, driving_mask)[1].clip(0, 1)

    def perturbed(of: jax.Array) -> jax.Array:
        return p_test(of, perturb.test_threshold, perturb.test_scale)

    masks: dict[str, Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]] = {
        "the driver's mask": lambda small, own, driving, true: driving,
        "r(P_test(driver's))": lambda small, own, driving, true: refine(small, own, perturbed(driving)),
        "r(P_test(true mask))": lambda small, own, driving, true: refine(small, own, perturbed(true)),
        "the true mask": lambda small, own, driving, true: true,
    }
    if trained is not None:
        again = trained
        masks |= {
            "trained r(P_test(driver's))": lambda small, own, driving, true: again(small, own, perturbed(driving)),
            "trained r(P_test(true mask))": lambda small, own, driving, true: again(small, own, perturbed(true)),
        }
    print(f"{'mask':29} {'distance':>9} " + " ".join(f"{name:>11}" for name in SHOWN))
    for name, make in masks.items():
        distances, rows = [], []
        for scene in scenes:
            still = np.broadcast_to(scene.starts["own"][0], scene.drivings.shape).astype(np.float32) / 255
            own, driving = mask(still), mask(scene.drivings.astype(np.float32) / 255)
            true = mask(np.stack([truth.frame for truth in scene.truths]))
            given = make(bilinear(jnp.asarray(still), system.mask_size), own, driving, true)
            distances.append(float(jnp.abs(given - true).mean()))
            rows.append(measure(scene, "own", np.asarray(paint(still, own, given))))
        figures = " ".join(f"{np.mean([row[each] for row in rows]):11.3f}" for each in SHOWN)
        print(f"{name:29} {np.mean(distances):9.4f} {figures}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """The command; raises UserError."""
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--workdir", type=Path, default=Path("puppets"), help="a run of Perturbed Masks on puppets")
    flags.add_argument("--pairs", type=int, default=20)
    flags.add_argument("--frames", type=int, default=4, help="frames of each driver")
    flags.add_argument("--steps", type=int, default=0, help="steps that r is trained alone")
    flags.add_argument("--batch", type=int, default=16)
    flags.add_argument("--rate", type=float, default=1e-3)
    flags.add_argument("--identities", type=int, default=800, help="training identities")
    flags.add_argument("--scale", type=float, help="perturb.shape_scale (default: the run's)")
    flags.add_argument("--stretch", type=float, help="perturb.shape_stretch")
    flags.add_argument("--blur", type=float, help="perturb.shape_blur")
    flags.add_argument(
        "--whole", type=float, help="perturb.whole_scale; with 0, P_test leaves the masks in their place, too"
    )
    args = flags.parse_args(argv)
    run = load_run(args.workdir)
    if run.system.name != "perturbed_masks" or not run.config.data.puppets.validation_identities:
        raise UserError(f"{args.workdir} is not a run of Perturbed Masks on puppets with a validation split")
    for field in ("scale", "stretch", "blur"):
        if getattr(args, field) is not None:
            run.config.perturb[f"shape_{field}"] = getattr(args, field)
    if args.whole is not None:
        run.config.perturb.whole_scale = args.whole
        if not args.whole:
            run.config.perturb.test_scale = 1.0
    clips = clips_of(run.config.data.puppets, "validation")
    scenes = [
        draw_scene(clips, pair, args.frames, run.system.frame_size) for pair in choose_pairs(clips, args.pairs, 0)
    ]
    trained = train(run, drawn(run, args.identities, 2), args.steps, args.batch, args.rate) if args.steps else None
    report(run, scenes, trained)


if __name__ == "__main__":
    run_main(main)
