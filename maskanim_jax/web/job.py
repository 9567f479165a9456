"""How does what was uploaded to the demo's page become two videos? The result, and the strip of intermediate pictures. No Gradio here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskanim_jax.animation.animator import Animator
from maskanim_jax.animation.generate import animate, nearest_frame
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import Fit
from maskanim_jax.video.reader import FrameSource, first_frame, open_frames
from maskanim_jax.video.strips import strip, to_uint8
from maskanim_jax.video.writer import MADE, VideoWriter

BATCH = 8
Report = Callable[[str, int, int | None], None]
"""Gets what is being done, the number of frames done, and the number of all frames if the video states it."""


@dataclass(frozen=True)
class Asked:
    """What a visitor asked for; `options` are the system's, as text by name; `most` is how many driving frames are taken."""

    source: Path
    driving: Path
    options: Mapping[str, str]
    fit: Fit = "crop"
    best_frame: bool = False
    most: int = 1500


@dataclass(frozen=True)
class Made:
    """Two mp4 files at the driving video's rate, with its sound; `warnings` is what the system has to say, a sentence each."""

    result: Path
    strip: Path
    frames: int
    warnings: list[str]


def make(animator: Animator, asked: Asked, folder: Path, name: str, report: Report) -> Made:
    """Writes `folder/animation-NAME.mp4` and `folder/strip-NAME.mp4`.

    Raises UserError for files and options that cannot be; the sentence has the file's name without the folder where the page keeps it.
    """
    try:
        return _make(animator, asked, folder, name, report)
    except UserError as error:
        sentence = str(error)
        for path in (asked.source, asked.driving):
            sentence = sentence.replace(str(path), path.name)
        raise UserError(sentence) from error


def _make(animator: Animator, asked: Asked, folder: Path, name: str, report: Report) -> Made:
    run, warnings = animator.run, list[str]()
    system = run.system
    options = system.animation_options(asked.options)
    source = first_frame(asked.source)
    first = None
    if asked.best_frame:
        with open_frames(asked.driving) as clip:
            frames = _at_most(clip, asked.most, report, "searching the best first frame")
            first = nearest_frame(system, run.variables, source, frames, batch=BATCH, fit=asked.fit)[1]
    result, strips = folder / f"animation-{name}.mp4", folder / f"strip-{name}.mp4"
    with open_frames(asked.driving) as clip, ExitStack() as stack:
        outputs = [stack.enter_context(VideoWriter(path, clip.fps, asked.driving, MADE)) for path in (result, strips)]
        for pictures in animate(
            system,
            run.variables,
            source,
            _at_most(clip, asked.most, report, "animating"),
            options,
            batch=BATCH,
            fit=asked.fit,
            first=first,
            warn=warnings.append,
        ):
            outputs[0].write(to_uint8(pictures[system.result]))
            outputs[1].write(strip(pictures, system.picture_order, system.frame_size, captions=True))
    return Made(result, strips, outputs[0].count, warnings)


def _at_most(clip: FrameSource, most: int, report: Report, doing: str) -> Iterator[np.ndarray]:
    """The clip's frames, reported as they are read; raises UserError when there are more than `most`, at once if the file says so."""
    if clip.count is not None and clip.count > most:
        raise _too_long(clip.path, f"{clip.count:,}", most)
    return _counted(clip, most, report, doing)


def _counted(clip: FrameSource, most: int, report: Report, doing: str) -> Iterator[np.ndarray]:
    frames: Iterable[np.ndarray] = clip
    for number, frame in enumerate(frames):
        if number == most:
            raise _too_long(clip.path, "more", most)
        report(doing, number, clip.count)
        yield frame


def _too_long(path: Path, count: str, most: int) -> UserError:
    return UserError(
        f"{path} has {count} frames, and this page takes {most:,}: cut it shorter, or start the demo with a larger --max_frames"
    )
