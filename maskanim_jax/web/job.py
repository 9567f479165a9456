"""How do uploads become two videos, the result and the strip of intermediates? (Does not use Gradio.)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskanim_jax.animation.animator import Animator
from maskanim_jax.animation.jobs import Doing, animate_file
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import Fit
from maskanim_jax.video.reader import FrameSource

BATCH = 8
_DOING: dict[Doing, str] = {"best frame": "searching the best first frame", "animate": "animating"}
Report = Callable[[str, int, int | None], None]
"""Called with the current activity, the number of frames done, and the total if the video states it."""


@dataclass(frozen=True)
class AnimationRequest:
    """A visitor's request; `options` are the system's, as strings by name; `most` limits the driving frames."""

    source: Path
    driving: Path
    options: Mapping[str, str]
    fit: Fit = "crop"
    find_best_frame: bool = False
    most: int = 1500


@dataclass(frozen=True)
class AnimationResult:
    """Two mp4 files with the driving video's timing and sound.

    `warnings` holds the system's warnings, one sentence each.
    """

    result: Path
    strip: Path
    frames: int
    warnings: list[str]


def make(animator: Animator, asked: AnimationRequest, folder: Path, name: str, report: Report) -> AnimationResult:
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


def _make(animator: Animator, asked: AnimationRequest, folder: Path, name: str, report: Report) -> AnimationResult:
    run, warnings = animator.run, list[str]()
    options = run.system.animation_options(asked.options)
    result, strips = folder / f"animation-{name}.mp4", folder / f"strip-{name}.mp4"

    def watch(clip: FrameSource, doing: Doing) -> Iterator[np.ndarray]:
        return _at_most(clip, asked.most, report, _DOING[doing])

    made = animate_file(
        run,
        asked.source,
        asked.driving,
        result,
        strips,
        options,
        batch=BATCH,
        fit=asked.fit,
        find_best_frame=asked.find_best_frame,
        watch=watch,
        warn=warnings.append,
    )
    return AnimationResult(result, strips, made.frames, warnings)


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
