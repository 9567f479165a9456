"""How well are held-out clips reconstructed? The paper's protocol (section 4.1), with a copy-source
baseline.

The first frame of a test clip is the source; all others are driving frames. L1 is the mean absolute
difference over all pixels and channels in [0, 1] and all reconstructed frames. Source and driver
have the same identity, so steps that separate identities are skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from input_pipeline.shards import ClipInfo
from maskanim_jax.metrics.interface import Metric
from maskanim_jax.metrics.mask_iou import MaskIoU
from maskanim_jax.systems.interface import Outputs, System, Variables
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.video.strips import strip
from maskanim_jax.video.writer import VideoWriter

BATCH = 8
"""Driving frames per batch; the last batch is padded, so that nothing is compiled twice."""


class FrameSource(Protocol):
    """Clips that can be reconstructed: a `Split` of shards, or puppets
    that are drawn on the fly.
    """

    clips: list[ClipInfo]

    def frame(self, clip_number: int, index: int) -> np.ndarray:
        """Frame `index` of a clip, (S, S, 3) uint8 RGB."""
        ...


Silhouettes = Callable[[str], np.ndarray]
"""Maps a clip's name to its true silhouettes (T, S, S) in [0, 1]; only drawn data has them."""


def _run(system: System, variables: Variables, source: jax.Array, driving: jax.Array) -> Outputs:
    return system.reconstruct(variables, source, driving)


_compiled = jax.jit(_run, static_argnums=0)  # compiled once per system


def reconstruct_clip(
    system: System, variables: Variables, frames: Iterable[np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the outputs for frames 1, 2, ... of a clip, each reconstructed from frame 0.

    Frames are (S, S, 3) uint8; only one batch is in memory.
    """
    stream = iter(frames)
    source = jnp.asarray(next(stream), jnp.float32) / 255.0
    sources = jnp.broadcast_to(source, (BATCH, *source.shape))
    while chunk := list(itertools.islice(stream, BATCH)):
        padded = np.stack(chunk + chunk[-1:] * (BATCH - len(chunk)))
        outputs = jax.device_get(_compiled(system, variables, sources, jnp.asarray(padded, jnp.float32) / 255.0))
        for i in range(len(chunk)):
            yield {name: picture[i] for name, picture in outputs.items()}


def _chosen(count: int, max_frames: int | None) -> np.ndarray:
    """Frame 0 and at most `max_frames` others, evenly spaced."""
    if max_frames is None or count - 1 <= max_frames:
        return np.arange(count)
    return np.concatenate([[0], np.linspace(1, count - 1, max_frames).round().astype(int)])


def reconstruct(
    system: System,
    variables: Variables,
    split: FrameSource,
    *,
    clips: int | None = None,
    frames: int | None = None,
    videos: Path | None = None,
    silhouettes: Silhouettes | None = None,
    metrics: Sequence[Metric] = (),
    progress: bool = False,
) -> dict[str, Any]:
    """The metrics of `split`, or of its first `clips` clips and `frames`
    evenly spaced frames of each.

    `videos` is a folder for a side-by-side video of every clip. Returns the content of
    `reconstruction.json`: L1 and the L1 of the copy-source baseline, overall and per clip, the
    values of `metrics`, measures of mask collapse, and the masks' IoU with the true silhouettes if
    known. Frames are measured as floats, not rounded to 8 bits.
    """
    rows: list[dict[str, Any]] = []
    overlap = MaskIoU()
    numbers = range(len(split.clips) if clips is None else min(clips, len(split.clips)))
    places = {number: _chosen(split.clips[number].count, frames) for number in numbers}
    bar = ProgressBar(
        total=sum(len(each) - 1 for each in places.values()), desc="reconstruct", unit="frame", disable=not progress
    )
    for number, chosen in places.items():
        clip = split.clips[number]
        if len(chosen) < 2:
            continue
        pairs = _Pairs(metrics)
        errors, repeats, masks = [], [], []
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(VideoWriter(videos / f"{clip.name}.mp4", clip.fps)) if videos else None
            for outputs in reconstruct_clip(system, variables, (split.frame(number, int(i)) for i in chosen)):
                errors.append(float(np.abs(outputs[system.result] - outputs["driving"]).mean()))
                repeats.append(float(np.abs(outputs["source"] - outputs["driving"]).mean()))
                pairs.add(outputs[system.result], outputs["driving"])
                bar.update()
                if system.mask_output:
                    masks.append(outputs[system.mask_output][..., 0])
                if writer is not None:
                    order = [name for name in system.output_names if name in outputs]
                    writer.write(strip(outputs, order, max(128, system.frame_size), captions=True))
        row = {
            "name": clip.name,
            "identity": clip.identity,
            "frames": len(errors),
            "l1": float(np.mean(errors)),
            "l1_copy_source": float(np.mean(repeats)),
            **pairs.finish_clip(),
        }
        if masks:
            stacked = np.stack(masks)
            row |= {
                "mask_mean": float(stacked.mean()),
                "mask_space": float(stacked.std((1, 2)).mean()),
                "mask_time": float(np.sqrt(stacked.var(0).mean())),
            }
            if silhouettes is not None:
                overlap.add(stacked, silhouettes(clip.name)[chosen[1:]])
        rows.append(row)
    bar.close()
    return _figures(rows, overlap, metrics)


class _Pairs:
    """Passes the frames of one clip to the metrics in batches."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics
        self._waiting: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, generated: np.ndarray, true: np.ndarray) -> None:
        """Adds one frame of each, (S, S, 3) in [0, 1]."""
        self._waiting.append((generated, true))
        if len(self._waiting) == BATCH:
            self._flush()

    def finish_clip(self) -> dict[str, float]:
        """The clip's values of all metrics."""
        self._flush()
        return {key: value for metric in self._metrics for key, value in metric.finish_clip().items()}

    def _flush(self) -> None:
        if self._waiting:
            generated, true = (np.stack(part) for part in zip(*self._waiting, strict=True))
            for metric in self._metrics:
                metric.add(generated, true)
            self._waiting.clear()


def _figures(rows: list[dict[str, Any]], overlap: MaskIoU, metrics: Sequence[Metric]) -> dict[str, Any]:
    """The overall values: L1 and `metrics` over all frames, masks as the mean over clips."""
    frames = sum(row["frames"] for row in rows)
    if not frames:
        return {"l1": None, "l1_copy_source": None, "ratio": None, "frames": 0, "clips": rows}
    l1, repeat = (sum(row[key] * row["frames"] for row in rows) / frames for key in ("l1", "l1_copy_source"))
    figures: dict[str, Any] = {
        "l1": l1,
        "l1_copy_source": repeat,
        "ratio": l1 / repeat if repeat else None,
        "frames": frames,
    }
    for metric in metrics:
        figures |= metric.overall()
    if "mask_mean" in rows[0]:
        named = {"mean": "mask_mean", "std_space": "mask_space", "std_time": "mask_time"}
        figures["mask"] = {name: float(np.mean([row[key] for row in rows])) for name, key in named.items()}
    if overlap.count:
        figures["mask"] |= overlap.best()
    return {**figures, "clips": rows}


def write_figures(path: Path, figures: dict[str, Any]) -> None:
    """Writes JSON under a temporary name and renames it."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=2))
