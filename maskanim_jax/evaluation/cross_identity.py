"""How well does animation by another identity match the ground truth?

Puppets are drawn, so the ground truth of one identity in the poses of another is known; for real
clips it is not. Held-out puppets are animated by other held-out puppets with every variant of the
system (`System.variants`), and compared with the ground truth.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskanim_jax.errors import UserError
from maskanim_jax.evaluation import cross_identity_metrics as measures
from maskanim_jax.evaluation.cross_identity_scenes import STARTS, Scene, choose_pairs, draw_scene
from maskanim_jax.metrics.bootstrap import interval
from maskanim_jax.utils.progress import ProgressBar

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.run import LoadedRun


REFERENCES = ("copying the source", "the driver itself")

OF_ANY_FRAME = ("l1", "l1_figure", "ssim", "leak", "leak_background")
"""Metrics that are valid for frames without the source's background."""

DEFINITIONS = {
    "l1": "mean absolute difference to the ground truth over all pixels and channels, in [0, 1]",
    "l1_figure": "the same over the pixels that the figure covers in the ground truth or in the source frame",
    "ssim": "structural similarity to the ground truth",
    "iou": "intersection over union of the silhouettes",
    "joint_error": "mean distance between the true joints and their positions found by template matching, in pixels of a 64-pixel frame "
    "whatever the frame size; a missing joint counts as a quarter of the frame's side",
    "joint_missing": "share of joints that were not found",
    "leak": "how much of the driver's appearance is on the figure, minus that of an unrelated identity: 0 none, 1 the driver itself",
    "leak_background": "the same of the driver's background, outside the figures",
    "shape_leak": "share of the pixels that only one of the two figures covers in this pose in which the result agrees with the driver's figure",
    "known_joint_error": "for copying the source and the driver itself: the true distance of the drawn joints in pixels of a 64-pixel frame",
}


def measure(scene: Scene, start: str, results: np.ndarray) -> dict[str, float]:
    """The metrics of DEFINITIONS, averaged over the frames of one pair; `results` is
    (T, S, S, 3) float32 in [0, 1].
    """
    rows: list[dict[str, float]] = []
    source_silhouette, similarity = scene.starts[start][1], _similarity()
    similar = None if similarity is None else similarity(results, np.stack([truth.frame for truth in scene.truths]))
    for i, (frame, truth) in enumerate(zip(results, scene.truths, strict=True)):
        joints = scene.finders[i](frame)
        driver = scene.drivings[i].astype(np.float32) / 255
        figure = truth.silhouette & scene.driver_silhouettes[i]
        outside = ~(truth.silhouette | scene.driver_silhouettes[i] | source_silhouette)
        row = {
            "l1": measures.l1(frame, truth),
            "l1_figure": measures.l1_where(frame, truth, truth.silhouette | source_silhouette),
            "iou": measures.silhouette_iou(frame, truth),
            "joint_error": joints.error * measures.UNIT_SIDE / frame.shape[0],
            "joint_missing": joints.missing,
            "shape_leak": measures.shape_leak(frame, truth, scene.driver_silhouettes[i]),
        }
        if similar is not None:
            row["ssim"] = float(similar[i])
        for name, where in (("leak", figure), ("leak_background", outside)):
            beyond = [measures.leak(frame, truth.frame, driver, other[i], where) for other in scene.distractors]
            if beyond:
                row[name] = float(np.mean(beyond))
        rows.append(row)
    return {
        name: float(np.mean(values))
        for name in rows[0]
        if (values := [row[name] for row in rows if np.isfinite(row[name])])
    }


@functools.cache
def _similarity() -> Callable[[np.ndarray, np.ndarray], np.ndarray] | None:
    """SSIM of (T, S, S, 3) frames, (T,); None if scikit-image is not installed."""
    from maskanim_jax.metrics.ssim import Ssim

    try:
        return Ssim().values
    except UserError as error:
        ProgressBar.write(f"SSIM is omitted: {error}")
        return None


def measure_cross_identity(
    run: LoadedRun,
    *,
    pairs: int = 20,
    frames: int = 8,
    seed: int = 0,
    more: Mapping[str, Mapping[str, str]] | None = None,
    split: str = "test",
    world: int | None = None,
    starts: Sequence[str] = STARTS,
    variants: Sequence[str] | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """The content of `truth.json`: the metrics of DEFINITIONS for every start and variant.

    It includes reference values, overall and per pair. `more` adds variants (options by name).
    `split` is "test" or "validation". `world` replaces the run's puppets by those of another world
    and also measures their reconstruction. `starts` and `variants` restrict the measurement
    (default: all); the content then has "restricted". Raises UserError for a run on real clips,
    whose ground truth is unknown.
    """
    from input_pipeline.puppets.dataset import clips_of
    from maskanim_jax.evaluation import puppet_worlds

    puppets = run.config.data.puppets
    if not puppets.test_identities:
        raise UserError(
            f"the run '{run.config.name}' has real clips, for which the ground truth of animation by another identity is unknown: "
            "only runs on puppets (configs/puppets.py, configs/fomm_puppets.py) have one"
        )
    if split == "validation" and world is None and not puppets.validation_identities:
        raise UserError(f"the run '{run.config.name}' has no validation puppets: use --split=test")
    clips = clips_of(puppets, split) if world is None else puppet_worlds.world_clips(puppets, world)
    chosen = choose_pairs(clips, pairs, seed)
    options = {
        name: run.system.animation_options(given)
        for name, given in {**run.system.variants, **(more or {})}.items()
        if variants is None or name in variants
    }
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pair in ProgressBar(chosen, desc="truth", unit="pair", disable=not progress):
        scene = draw_scene(clips, pair, frames, run.system.frame_size)
        named = {"source": scene.source.name, "driving": scene.driving.name, "frames": len(scene.numbers)}
        for start in starts:
            for name, row in _measure_scene(run, scene, start, options):
                found.setdefault((start, name), []).append({**named, **row})
    rows = [_row(start, name, members) for (start, name), members in found.items()]
    about: dict[str, Any] = {} if split == "test" else {"split": split}
    if variants is not None or set(starts) != set(STARTS):
        about["restricted"] = True
    if world is not None:
        about |= {"world": world, "reconstruction": puppet_worlds.world_reconstruction(run, world, progress)}
    return {
        "system": run.system.name,
        "name": run.config.name,
        "checkpoint_step": run.step,
        "frame_size": run.system.frame_size,
        "data": puppets.to_dict(),
        "seed": seed,
        **about,
        "definitions": DEFINITIONS,
        "rows": rows,
    }


def _measure_scene(
    run: LoadedRun, scene: Scene, start: str, options: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, float]]]:
    """(variant or reference, metrics) of one pair from one start; `options`
    has each variant's options.
    """
    still, _, joints = scene.starts[start]
    yield (
        REFERENCES[0],
        {
            **measure(scene, start, np.broadcast_to(still, scene.drivings.shape).astype(np.float32) / 255),
            "known_joint_error": _known_joint_error(scene, [joints] * len(scene.numbers)),
        },
    )
    driver = measure(scene, start, scene.drivings.astype(np.float32) / 255)
    yield (
        REFERENCES[1],
        {
            # With another background and appearance, neither figure nor joints can be found.
            **{name: value for name, value in driver.items() if name in OF_ANY_FRAME},
            "known_joint_error": _known_joint_error(scene, list(scene.driver_joints)),
        },
    )
    for name, chosen in options.items():
        yield name, measure(scene, start, _animated(run, scene, still, chosen))


def _animated(run: LoadedRun, scene: Scene, still: np.ndarray, options: Any) -> np.ndarray:
    """The frames of `still`, animated by the scene's driver, (T, S, S, 3) float32 in [0, 1]."""
    from maskanim_jax.animation.generate import animate

    # Relative motion starts from the driver's first frame, even if that is not measured.
    rendered = animate(
        run.system,
        run.variables,
        still,
        scene.drivings,
        options,
        first=scene.drivings[0],
        names=(run.system.result,),
    )
    return np.stack([outputs[run.system.result] for outputs in rendered]).clip(0, 1)


def _known_joint_error(scene: Scene, joints: Sequence[np.ndarray]) -> float:
    """The mean distance of drawn joints, a (J, 2) array per frame, from the true ones, in
    pixels of a 64-pixel frame.
    """
    side = scene.truths[0].frame.shape[0]
    apart = [
        np.linalg.norm(a - truth.joints, axis=1).mean() * measures.UNIT_SIDE / side
        for a, truth in zip(joints, scene.truths, strict=True)
    ]
    return float(np.mean(apart))


def _row(start: str, variant: str, members: list[dict[str, Any]]) -> dict[str, Any]:
    """The means of a variant over pairs, with intervals, and the values of each pair."""
    names = [name for name in DEFINITIONS if any(name in member for member in members)]
    found = {name: interval([member[name] for member in members if name in member]) for name in names}
    about = {"start": start, "variant": variant, "reference": variant in REFERENCES}
    intervals = {name: [each.low, each.high] for name, each in found.items()}
    return {**about, **{name: each.mean for name, each in found.items()}, "intervals": intervals, "pairs": members}


def table(figures: Mapping[str, Any]) -> str:
    """The results as a table for the console."""
    names = [name for name in DEFINITIONS if any(name in row for row in figures["rows"])]
    width = max(len(row["variant"]) for row in figures["rows"])
    lines = [f"{'start':7} {'variant':{width}} " + " ".join(f"{name:>{max(8, len(name))}}" for name in names)]
    for row in figures["rows"]:
        cells = (
            f"{row[name]:{max(8, len(name))}.4f}" if name in row else " " * (max(8, len(name)) - 1) + "-"
            for name in names
        )
        lines.append(f"{row['start']:7} {row['variant']:{width}} " + " ".join(cells))
    return "\n".join(lines)
