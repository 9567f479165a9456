"""How is a still image animated by a driving video? `python -m maskanim_jax.animate --help` tells.

The checkpoint says which system does it. Frames are streamed, so the driving may have any length and size. See docs/animation.md.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from tqdm import tqdm

from maskanim_jax.animation.compiled import compiled, unit
from maskanim_jax.animation.nearest import nearest_frame
from maskanim_jax.animation.pairs import read_pairs
from maskanim_jax.animation.smoothing import step_for_a_video
from maskanim_jax.checkpoints import bundled
from maskanim_jax.errors import UserError, exit_with_sentence
from maskanim_jax.systems import SYSTEMS
from maskanim_jax.utils.memory import with_huge_pages
from maskanim_jax.video.images import Fit
from maskanim_jax.video.reader import first_frame, open_frames
from maskanim_jax.video.strips import strip, to_uint8
from maskanim_jax.video.writer import MADE, VideoWriter, check_writable, is_folder

if TYPE_CHECKING:
    from maskanim_jax.checkpoints.loading import LoadedRun
    from maskanim_jax.systems.interface import System, Variables


def animate(
    system: System,
    variables: Variables,
    source: np.ndarray,
    driving: Iterable[np.ndarray],
    options: Any,
    *,
    batch: int = 8,
    fit: Fit = "crop",
    first: np.ndarray | None = None,
    warn: Callable[[str], None] | None = None,
    names: Sequence[str] = (),
) -> Iterator[dict[str, np.ndarray]]:
    """Yields, for every driving frame, the system's pictures: (H, W, 1 or 3) float32 in [0, 1] by name, all of them or those of `names`.

    `source` and each driving frame are (H, W, 3) uint8 of any size; `fit` makes them square. `options` is
    what `system.animation_options` returned. `first` stands in for the first driving frame, from which relative
    motion is measured; `warn` gets what the system has to say of source and driving. At most `batch` frames are
    read ahead; the last batch is filled up, so that one compilation serves every length.
    """
    if batch < 1:
        raise ValueError("a batch has at least one frame")
    ready = compiled(system, variables, batch)
    frames = (unit(frame, system.frame_size, fit) for frame in driving)
    step = step_for_a_video(ready, options)
    begun = None
    while some := list(itertools.islice(frames, batch)):
        if begun is None:
            start = some[0] if first is None else unit(first, system.frame_size, fit)
            begun = ready.begin(unit(source, system.frame_size, fit)[None], start[None])
            if warn is not None and (sentences := system.warnings(begun, options)):
                warn("; ".join(sentences))
        filled = np.stack(some + [some[-1]] * (batch - len(some)))
        pictures = {
            name: np.asarray(values, np.float32) for name, values in step(begun, filled, options, tuple(names)).items()
        }
        for index in range(len(some)):
            yield {name: values[index] for name, values in pictures.items()}


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
        with _named(job):
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
def _named(job: Job) -> Iterator[None]:
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


def system_flags() -> dict[str, str]:
    """The options of all systems by name, with what --help says of them."""
    found: dict[str, list[str]] = {}
    for system in SYSTEMS:
        for name, sentence in importlib.import_module(f"maskanim_jax.systems.{system}.options").FLAGS.items():
            found.setdefault(name, []).append(f"({system}) {sentence}")
    return {name: "; ".join(sentences) for name, sentences in found.items()}


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    flags = argparse.ArgumentParser(
        prog="python -m maskanim_jax.animate",
        description="Animates a still image by a driving video, whose speed and sound the result keeps.",
        allow_abbrev=False,
    )
    add = flags.add_argument
    add(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="DIR",
        help="workdir of a training, a checkpoint in it, or puppets: the one that comes with the package",
    )
    add("--source", metavar="IMAGE", help="image to animate; of a video the first frame; puppets: a drawn one")
    add(
        "--driving",
        metavar="VIDEO",
        help="video, gif, or folder of frames, of any size and length; puppets: a drawn one",
    )
    add(
        "--output",
        required=True,
        metavar="OUT",
        help="*.mp4, *.mov, *.gif, or FOLDER/ for lossless 000000.png ...",
    )
    for name, sentence in system_flags().items():
        add(f"--{name}", nargs="?", const="true", metavar="VALUE", help=sentence.replace("%", "%%"))
    add(
        "--best_frame",
        action="store_true",
        help="measure relative motion from the driving frame that is nearest to the source's pose, instead of the first",
    )
    add(
        "--fit",
        choices=get_args(Fit),
        default="crop",
        help="make frames square by a centre crop or by padding",
    )
    add("--strip", metavar="OUT", help="also write all intermediate pictures side by side")
    add("--batch", type=int, default=8, metavar="N", help="frames at once (default 8)")
    add("--pairs", metavar="CSV", help="columns source,driving: one result a row; --output is then a folder")
    add("--data", type=Path, metavar="ROOT", help="folder that the paths in the CSV are relative to")
    return flags


def main(argv: Sequence[str] | None = None) -> int:
    """The command; raises UserError."""
    args = parser().parse_args(argv)
    if args.batch < 1:
        raise UserError(f"--batch={args.batch} cannot be: give 1 or more frames")
    jobs = plan(args)
    from maskanim_jax.checkpoints.loading import load_run, saved_config
    from maskanim_jax.distributed import setup

    setup.prepare(saved_config(args.checkpoint))
    run = load_run(args.checkpoint)
    given = {name: value for name in system_flags() if (value := getattr(args, name)) is not None}
    options = run.system.animation_options(given)
    for number, job in enumerate(jobs, 1):
        with _named(job):
            label = f"{number}/{len(jobs)}" if len(jobs) > 1 else ""
            count = render(run, job, options, batch=args.batch, fit=args.fit, best_frame=args.best_frame, label=label)
        print(f"{job.output}: {count} frames, from the checkpoint of step {run.step}")
    return 0


if __name__ == "__main__":
    with_huge_pages()
    exit_with_sentence(main)
