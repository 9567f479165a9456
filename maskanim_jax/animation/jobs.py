"""What does `animate` make of its flags? One job a result: checked before any work, then rendered."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from maskanim_jax.animation.generate import animate, nearest_frame
from maskanim_jax.animation.pairs import read_pairs
from maskanim_jax.checkpoints import bundled
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import Fit
from maskanim_jax.video.reader import first_frame, open_frames
from maskanim_jax.video.strips import strip, to_uint8
from maskanim_jax.video.writer import MADE, VideoWriter, check_writable, is_folder

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.run import LoadedRun


@dataclass(frozen=True)
class Job:
    """One result to make; `where` names the CSV line that asked for it, for errors."""

    source: Path
    driving: Path
    output: str
    strip: str | None
    where: str = ""


def plan(args: argparse.Namespace) -> list[Job]:
    """What the flags ask for, checked before any work: inputs can be opened, outputs can be written.

    Raises UserError.
    """
    if args.pairs is None:
        if args.source is None or args.driving is None:
            raise UserError("--source and --driving are missing; give both, or --pairs=CSV")
        source, driving = (
            bundled.example(Path(args.source), bundled.SOURCE),
            bundled.example(Path(args.driving), bundled.DRIVING),
        )
        jobs = [Job(source, driving, args.output, args.strip)]
    else:
        if args.source is not None or args.driving is not None:
            raise UserError("--pairs stands alone; leave --source and --driving away, or give them without --pairs")
        for folder in filter(None, (args.output, args.strip)):
            if Path(folder).suffix and not is_folder(folder):
                raise UserError(f"{folder} must be a folder with --pairs; end it with /")
        pairs = read_pairs(Path(args.pairs), args.data)
        jobs = []
        for number, pair in enumerate(pairs):
            name = pair.output_name(number)
            strip_path = str(Path(args.strip) / name) if args.strip else None
            where = f"{args.pairs} line {pair.line}: "
            jobs.append(Job(pair.source, pair.driving, str(Path(args.output) / name), strip_path, where))
    for job in jobs:
        with named(job):
            _check(job)
    return jobs


def _check(job: Job) -> None:
    first_frame(job.source)
    first_frame(job.driving)
    outputs = [path for path in (job.output, job.strip) if path]
    if len({Path(path).resolve() for path in outputs}) < len(outputs):
        raise UserError(f"{job.output} is both --output and --strip; give two names")
    for path in outputs:
        for given in (job.source.resolve(), job.driving.resolve()):
            if Path(path).resolve() in (given, *given.parents):
                raise UserError(f"{path} is or holds an input; choose another output, so that nothing is lost")
        check_writable(path)


@contextmanager
def named(job: Job) -> Iterator[None]:
    """Puts the CSV line before the sentence of an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{job.where}{error}") from error


def render(
    run: LoadedRun, job: Job, options: Any, *, batch: int, fit: Fit, best_frame: bool = False, label: str = ""
) -> int:
    """Makes one result, and its strip if asked for; returns the number of frames. Raises UserError."""
    system = run.system
    source = first_frame(job.source)
    first = _best_frame(run, job, source, batch=batch, fit=fit, label=label) if best_frame else None
    with open_frames(job.driving) as driving, ExitStack() as stack:
        output = stack.enter_context(VideoWriter(job.output, driving.fps, job.driving, MADE))
        strips = stack.enter_context(VideoWriter(job.strip, driving.fps, job.driving, MADE)) if job.strip else None
        names = () if job.strip else (system.result,)
        results = animate(
            system,
            run.variables,
            source,
            driving,
            options,
            batch=batch,
            fit=fit,
            first=first,
            warn=_warning(job),
            names=names,
        )
        for pictures in tqdm(results, desc=label or "animate", total=driving.count, unit="frame"):
            output.write(to_uint8(pictures[system.result]))
            if strips is not None:
                strips.write(strip(pictures, system.picture_order, system.frame_size, captions=True))
    return output.count


def _best_frame(run: LoadedRun, job: Job, source: np.ndarray, *, batch: int, fit: Fit, label: str) -> np.ndarray:
    """The driving frame in the source's pose, found by reading the video once; says which it is."""
    with open_frames(job.driving) as driving:
        frames = tqdm(driving, desc=f"{label} best frame".strip(), total=driving.count, unit="frame")
        number, frame = nearest_frame(run.system, run.variables, source, frames, batch=batch, fit=fit)
    print(f"{job.driving}: frame {number} is nearest to the source's pose")
    return frame


def _warning(job: Job) -> Callable[[str], None]:
    def warn(sentence: str) -> None:
        tqdm.write(f"warning: {job.where}{sentence}", file=sys.stderr)

    return warn
