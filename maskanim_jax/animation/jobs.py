"""Which files does the animate command read and write?

One job per result, checked before any work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from maskanim_jax.animation.generate import animate, nearest_frame
from maskanim_jax.animation.pairs import read_pairs
from maskanim_jax.checkpoints import bundled
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import atomic_write
from maskanim_jax.utils.progress import ProgressBar
from maskanim_jax.video.images import Fit
from maskanim_jax.video.reader import FrameSource, first_frame, open_frames
from maskanim_jax.video.strips import strip, to_uint8
from maskanim_jax.video.timing import Timing
from maskanim_jax.video.writer import PROVENANCE_COMMENT, VideoWriter, check_writable, is_folder

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.run import LoadedRun
    from maskanim_jax.systems.interface import System


@dataclass(frozen=True)
class Job:
    """One result; `where` names its CSV line in error messages."""

    source: Path
    driving: Path
    output: str
    strip: str | None
    where: str = ""


def jobs_from_args(args: argparse.Namespace) -> list[Job]:
    """The jobs that the flags describe.

    Raises UserError before any work when an input cannot be opened or an output cannot be written.
    """
    if args.output is None:
        raise UserError("--output is missing; give a file such as out.mp4, or a folder that ends with /")
    if args.pairs is None:
        if args.source is None or args.driving is None:
            raise UserError("--source and --driving are missing; give both, or --pairs=CSV")
        source, driving = (
            bundled.example(Path(args.source), bundled.SOURCE),
            bundled.example(Path(args.driving), bundled.DRIVING),
        )
        jobs = [Job(source, driving, args.output, args.save_intermediates)]
    else:
        if args.source is not None or args.driving is not None:
            raise UserError("--pairs cannot be combined with --source or --driving; omit either")
        for folder in filter(None, (args.output, args.save_intermediates)):
            if Path(folder).suffix and not is_folder(folder):
                raise UserError(f"{folder} must be a folder with --pairs; end it with /")
        pairs = read_pairs(Path(args.pairs), args.data)
        jobs = []
        for number, pair in enumerate(pairs):
            name = pair.output_name(number)
            strip_path = str(Path(args.save_intermediates) / name) if args.save_intermediates else None
            where = f"{args.pairs} line {pair.line}: "
            jobs.append(Job(pair.source, pair.driving, str(Path(args.output) / name), strip_path, where))
    for job in jobs:
        with named(job):
            _check(job)
    return jobs


def example_job(args: argparse.Namespace) -> list[Job]:
    """The example of the bundled checkpoint `args.checkpoint`, copied into the folder
    `args.example`. Raises UserError.
    """
    if args.source or args.driving or args.output or args.pairs:
        raise UserError("--example cannot be combined with --source, --driving, --output or --pairs: omit those")
    found = bundled.examples(str(args.checkpoint)) if bundled.is_bundled(Path(args.checkpoint)) else []
    if not found:
        raise UserError(f"--checkpoint={args.checkpoint} has no example: give the name of a bundled checkpoint")
    folder = Path(args.example)
    check_writable(str(folder / "out.mp4"))
    folder.mkdir(parents=True, exist_ok=True)
    copies = [folder / bundled.SOURCE, folder / bundled.DRIVING]
    for original, copy in zip(found[0], copies, strict=True):
        with atomic_write(copy) as temporary:
            temporary.write_bytes(original.read_bytes())
    return [Job(copies[0], copies[1], str(folder / "out.mp4"), str(folder / "strip.mp4"))]


def _check(job: Job) -> None:
    first_frame(job.source)
    first_frame(job.driving)
    outputs = [path for path in (job.output, job.strip) if path]
    if len({Path(path).resolve() for path in outputs}) < len(outputs):
        raise UserError(f"{job.output} is both --output and --save_intermediates; give two names")
    for path in outputs:
        for given in (job.source.resolve(), job.driving.resolve()):
            if Path(path).resolve() in (given, *given.parents):
                raise UserError(f"{path} is or contains an input and would overwrite it; choose another output")
        check_writable(path)


@contextmanager
def named(job: Job) -> Iterator[None]:
    """Puts the CSV line in front of an error message."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{job.where}{error}") from error


def render(
    run: LoadedRun, job: Job, options: Any, *, batch: int, fit: Fit, find_best_frame: bool = False, label: str = ""
) -> int:
    """Renders one result (and its strip) with a progress bar; returns the number of frames.

    Raises UserError.
    """

    def watch(clip: FrameSource, doing: Doing) -> Iterable[np.ndarray]:
        desc = (label or "animate") if doing == "animate" else f"{label} {doing}".strip()
        return ProgressBar(clip, desc=desc, total=clip.count, unit="frame")

    made = animate_file(
        run,
        job.source,
        job.driving,
        job.output,
        job.strip,
        options,
        batch=batch,
        fit=fit,
        find_best_frame=find_best_frame,
        watch=watch,
        warn=_warning(job),
    )
    if made.find_best_frame is not None:
        print(f"{job.driving}: frame {made.find_best_frame} is nearest to the source's pose")
    return made.frames


Doing = Literal["best frame", "animate"]
"""Why the driving video is read: to find the best frame, or to animate."""


class Made(NamedTuple):
    """Result of `animate_file`: number of frames, and the index of the best driving frame if it was
    searched.
    """

    frames: int
    find_best_frame: int | None


def animate_file(
    run: LoadedRun,
    source: Path,
    driving: Path,
    output: str | Path,
    strips: str | Path | None,
    options: Any,
    *,
    batch: int,
    fit: Fit,
    find_best_frame: bool,
    watch: Callable[[FrameSource, Doing], Iterable[np.ndarray]],
    warn: Callable[[str], None],
) -> Made:
    """Animates the image `source` with the video `driving` and writes `output`.

    The output keeps the video's timestamps and sound; `strips` also gets all intermediate outputs
    side by side. With `find_best_frame` the driving is read twice, and relative motion is measured
    from the frame nearest to the source's pose. `watch` wraps the iteration over the driving
    frames: it may count them, or raise when there are too many. Raises UserError.
    """
    system, still = run.system, first_frame(source)
    number = first = None
    if find_best_frame:
        with open_frames(driving) as clip:
            frames = watch(clip, "best frame")
            number, first = nearest_frame(system, run.variables, still, frames, batch=batch, fit=fit)
    with open_frames(driving) as clip:
        pictures = animate(
            system,
            run.variables,
            still,
            watch(clip, "animate"),
            options,
            batch=batch,
            fit=fit,
            first=first,
            warn=warn,
            names=() if strips else (system.result,),
        )
        return Made(write_animation(system, pictures, [output], strips, fps=clip.timing, sound=driving), number)


def write_animation(
    system: System,
    pictures: Iterable[Mapping[str, np.ndarray]],
    outputs: Sequence[str | Path],
    strips: str | Path | None = None,
    *,
    fps: Fraction | Timing,
    sound: Path | None = None,
    strip_side: int | None = None,
) -> int:
    """Writes each frame's result to all `outputs` and its strip to `strips`; returns the number of
    frames.

    `pictures` is what `animate` yields (for `strips`, all outputs). `fps` is a frame rate or a
    `Timing`. `sound` is the file whose sound is kept. `strip_side` is the side of each image in the
    strip, in pixels (default: the system's frame size). Every file's metadata says that it was
    generated. Prints a line when a gif or a folder cannot keep the exact timestamps.
    """
    with ExitStack() as stack:
        results, side_by_side = (
            [stack.enter_context(VideoWriter(path, fps, sound, PROVENANCE_COMMENT)) for path in paths]
            for paths in (outputs, [strips] if strips else [])
        )
        for shown in pictures:
            result = to_uint8(shown[system.result])
            for writer in results:
                writer.write(result)
            for writer in side_by_side:
                writer.write(strip(shown, system.output_names, strip_side or system.frame_size, captions=True))
    for writer in (*results, *side_by_side):
        if writer.note:
            ProgressBar.write(f"{writer.path}: {writer.note}")
    return results[0].count


def _warning(job: Job) -> Callable[[str], None]:
    def warn(message: str) -> None:
        ProgressBar.write(f"warning: {job.where}{message}", file=sys.stderr)

    return warn
