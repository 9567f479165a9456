"""How do uploads become two videos, the result and the strip of intermediates?

(Does not use Gradio.)
"""

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
"""Called with the current activity, the number of frames done, and the total
if the video declares it.
"""


@dataclass(frozen=True)
class AnimationRequest:
    """A visitor's request.

    `options` are the system's options, as strings by name; `max_frames` limits the driving frames.
    """

    source: Path
    driving: Path
    options: Mapping[str, str]
    fit: Fit = "crop"
    find_best_frame: bool = False
    max_frames: int = 1500


@dataclass(frozen=True)
class AnimationResult:
    """Two mp4 files with the driving video's timing and sound.

    `warnings` holds the system's warnings, one message each.
    """

    result: Path
    strip: Path
    frames: int
    warnings: list[str]


def make(animator: Animator, asked: AnimationRequest, folder: Path, name: str, report: Report) -> AnimationResult:
    """Writes `folder/animation-NAME.mp4` and `folder/strip-NAME.mp4`.

    Raises UserError for invalid files and options; the message has the file's name without
    the page's internal folder.
    """
    try:
        return _make(animator, asked, folder, name, report)
    except UserError as error:
        message = str(error)
        for path in (asked.source, asked.driving):
            message = message.replace(str(path), path.name)
        raise UserError(message) from error


def _make(animator: Animator, asked: AnimationRequest, folder: Path, name: str, report: Report) -> AnimationResult:
    run, warnings = animator.run, list[str]()
    options = run.system.animation_options(asked.options)
    result, strips = folder / f"animation-{name}.mp4", folder / f"strip-{name}.mp4"

    def watch(clip: FrameSource, doing: Doing) -> Iterator[np.ndarray]:
        return _at_most(clip, asked.max_frames, report, _DOING[doing])

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


def _at_most(clip: FrameSource, max_frames: int, report: Report, doing: str) -> Iterator[np.ndarray]:
    """Yields the clip's frames and reports progress.

    Raises UserError for more than `max_frames` frames, at once if the file declares so.
    """
    if clip.count is not None and clip.count > max_frames:
        raise _too_long(clip.path, f"{clip.count:,}", max_frames)
    return _counted(clip, max_frames, report, doing)


def _counted(clip: FrameSource, max_frames: int, report: Report, doing: str) -> Iterator[np.ndarray]:
    frames: Iterable[np.ndarray] = clip
    for number, frame in enumerate(frames):
        if number == max_frames:
            raise _too_long(clip.path, "more", max_frames)
        report(doing, number, clip.count)
        yield frame


def _too_long(path: Path, count: str, max_frames: int) -> UserError:
    return UserError(
        f"{path} has {count} frames, but this page accepts {max_frames:,}: shorten it, or start the demo with a larger --max_frames"
    )
