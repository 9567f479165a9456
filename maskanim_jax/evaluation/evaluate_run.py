"""How is a run evaluated on its test split? `--mode=reconstruct` and `--mode=animate` of the main
command.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from input_pipeline.from_config import open_data, true_silhouettes
from input_pipeline.shards import Split
from maskanim_jax.animation.generate import animate
from maskanim_jax.animation.jobs import write_animation
from maskanim_jax.animation.pairs import ClipPair, read_clip_pairs, shortened
from maskanim_jax.buckets.local_paths import in_working_copy
from maskanim_jax.checkpoints.loading import load_run
from maskanim_jax.checkpoints.run import LoadedRun
from maskanim_jax.errors import UserError
from maskanim_jax.evaluation.reconstruction import reconstruct, write_figures
from maskanim_jax.metrics.l1 import L1
from maskanim_jax.metrics.suite import select_metrics
from maskanim_jax.utils.paths import user_path
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.video.writer import VideoWriter
from maskanim_jax.workdir.config import read_config, write_config
from maskanim_jax.workdir.results import ANIMATION, INPUTS, inputs_of, reconstruction_stem


def _load(config: ConfigDict, workdir: Path) -> LoadedRun:
    """Loads the run of the workdir, whose config must match."""
    read_config(workdir)
    write_config(workdir, config)
    return load_run(workdir, config.reconstruct.checkpoint)


@in_working_copy()
def reconstruct_test(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """The paper's reconstruction protocol on the test split; writes `reconstruction.json` and
    side-by-side videos into the workdir.

    With `config.reconstruct.split` "validation", that split is measured, and the result is
    `reconstruction_validation.json`.
    """
    name = config.reconstruct.split
    if name not in ("test", "validation"):
        raise UserError(f"config.reconstruct.split={name} must be test or validation")
    stem = reconstruction_stem(name)
    run = _load(config, workdir)
    split = open_data(config, name, jax.process_index())
    videos = workdir / stem
    videos.mkdir(exist_ok=True)
    chosen = select_metrics(run.system.frame_size, config.reconstruct.backends)
    figures = reconstruct(
        run.system,
        run.variables,
        split,
        clips=config.reconstruct.clips or None,
        videos=videos,
        silhouettes=true_silhouettes(config, split),
        metrics=chosen.metrics,
        progress=True,
    )
    if not figures["frames"]:
        raise UserError(
            f"{split.shards} has no {name} clip with at least two frames: prepare it with a `{name}` folder"
        )
    about = {"system": run.system.name, "checkpoint_step": run.step, "split": name}
    figures = {**about, "data_fingerprint": split.fingerprint, **figures}
    described = {"l1": L1().descriptions["l1"], **chosen.descriptions}
    unseen = {key: "its network found nothing to compare" for key in described if key not in figures}
    not_measured = chosen.not_measured | unseen
    figures |= {
        "measured": {key: text for key, text in described.items() if key in figures},
        "not_measured": not_measured,
    }
    write_figures(workdir / f"{stem}.json", figures)
    print(
        f"L1 {figures['l1']:.4f} over {figures['frames']} frames; "
        f"copying the source {figures['l1_copy_source']:.4f}; ratio {figures['ratio']:.3f}"
    )
    print("; ".join(f"{key} {figures[key]:.4f}" for key in chosen.descriptions if key in figures))
    for key, reason in not_measured.items():
        print(f"not measured: {key}, because {reason}")
    return figures


def test_pairs(split: Split, count: int) -> Iterator[tuple[int, int]]:
    """Indices (source clip, driving clip); each source is driven by the next
    clip of another identity.
    """
    found = 0
    for source, clip in enumerate(split.clips):
        others = [*range(source + 1, len(split.clips)), *range(source)]
        driving = next((other for other in others if split.clips[other].identity != clip.identity), None)
        if driving is not None and found < count:
            found += 1
            yield source, driving


def _written(frames: Iterable[np.ndarray], writer: VideoWriter) -> Iterator[np.ndarray]:
    for frame in frames:
        writer.write(frame)
        yield frame


def _pairs(config: ConfigDict, split: Split) -> list[ClipPair]:
    """The pairs for `animate_test`: those of a published list, or the first few with different
    identities.
    """
    if not config.animate.pairs_csv:
        return [ClipPair(*pair) for pair in test_pairs(split, config.animate.pairs)]
    path = user_path(config.animate.pairs_csv)
    pairs, absent = read_clip_pairs(path, [clip.name for clip in split.clips])
    if late := [pair for pair in pairs if pair.frame >= split.clips[pair.driving].count]:
        name = split.clips[late[0].driving].name
        raise UserError(f"{path} starts {name} at frame {late[0].frame}, which does not exist: correct the list")
    ProgressBar.write(
        f"{len(pairs)} of the {len(pairs) + absent} pairs of {path} are in the test split"
        + ("; clips of the other pairs are missing" if absent else "")
    )
    return pairs


@in_working_copy()
def animate_test(config: ConfigDict, workdir: Path) -> list[Path]:
    """Animates first frames of test clips by clips of other identities.

    Writes mp4, gif and a strip of intermediate outputs to `animation/`, and each source and driver
    to `animation/inputs/`, for the report and the demo's examples.
    """
    run = _load(config, workdir)
    split = open_data(config, "test", jax.process_index())
    folder = workdir / ANIMATION
    (folder / INPUTS).mkdir(parents=True, exist_ok=True)
    options = run.system.animation_options({key: str(value) for key, value in config.animate.options.items()})
    pairs = _pairs(config, split)
    if not pairs:
        raise UserError(
            f"{split.shards} has no two test clips of different identities: add some, or use `python -m maskanim_jax.animate` on files"
        )
    made: list[Path] = []
    captions: dict[str, str] = {}
    warnings: list[str] = []
    for pair in ProgressBar(pairs, desc="animate", unit="pair"):
        source, driving = pair.source, pair.driving
        name = f"{shortened(split.clips[source].name)}-by-{shortened(split.clips[driving].name)}"
        name += f"-from-{pair.frame}" if pair.frame else ""
        fps = split.clips[driving].fps
        paths = [folder / f"{name}.mp4", folder / f"{name}.gif", folder / f"{name}-strip.mp4"]
        still = split.frame(source, 0)
        inputs = inputs_of(folder, name)
        Image.fromarray(still).save(inputs.source)
        with VideoWriter(inputs.driving, fps) as driver:
            frames = _written(itertools.islice(split.frames(driving), pair.frame, None), driver)
            shown = animate(run.system, run.variables, still, frames, options, warn=warnings.append)
            side = max(128, run.system.frame_size)
            write_animation(run.system, shown, paths[:2], paths[2], fps=fps, strip_side=side)
        made += paths
        captions |= {
            path.name: f"{split.clips[source].name} in the pose of {split.clips[driving].name}" for path in paths
        }
    if warnings:
        ProgressBar.write(f"warning for {len(warnings)} of {len(pairs)} pairs: {warnings[0]}")
    (folder / "captions.json").write_text(json.dumps(captions, indent=2))
    return made
