"""How does what was uploaded to the demo's page become two videos? The result, and the strip of intermediate pictures. No Gradio here."""

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
"""Gets what is being done, the number of frames done, and the number of all frames if the video states it."""


@dataclass(frozen=True)
class AnimationRequest:
    """What a visitor asked for; `options` are the system's, as text by name; `most` is how many driving frames are taken."""

    source: Path
    driving: Path
    options: Mapping[str, str]
    fit: Fit = "crop"
    find_best_frame: bool = False
    most: int = 1500


@dataclass(frozen=True)
class AnimationResult:
    """Two mp4 files whose frames are shown when the driving video's are, with its sound.

    `warnings` is what the system has to say, a sentence each.
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
