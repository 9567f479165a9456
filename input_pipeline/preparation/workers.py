"""Who makes the parts? This process, all cores of this machine, worker i of n machines, or Apache Beam."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from input_pipeline.preparation.shard_jobs import Note, Part, Settings, make_part
from maskanim_jax.errors import UserError

Done = Callable[[Part, Note], None]
"""Called in this process for each part that has been made, in any order."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_parts(parts: Sequence[Part], settings: Settings, folder: Path | None, processes: int, done: Done) -> None:
    """Makes all parts in so many processes (1: in this one). The files do not depend on the number.

    Raises UserError like `make_part`, or when a process dies; parts that are finished by then are kept.
    """
    if min(processes, len(parts)) <= 1:
        for part in parts:
            done(part, make_part(part, settings, folder))
        return
    with _pool(min(processes, len(parts))) as pool:
        waiting = {pool.submit(make_part, part, settings, folder): part for part in parts}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    done(waiting.pop(future), future.result())
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, perhaps for want of memory; start the same command again, which goes on, with fewer --workers"
            ) from error


@dataclass(frozen=True)
class Beam:
    """How an Apache Beam pipeline is run: command line arguments (`--runner=...` and the runner's own), or Beam's own objects."""

    arguments: tuple[str, ...] = ()
    options: Any = None
    runner: Any = None


def make_parts_on_beam(parts: Sequence[Part], settings: Settings, folder: Path, how: Beam) -> None:
    """Makes all parts by an Apache Beam pipeline; when nothing is said on the local runner. The runner's workers must see the input and
    `folder` by the same absolute paths, and have this package.

    Raises UserError when Beam is not installed or the pipeline fails.
    """
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError("--beam needs apache-beam; install it with pip install 'maskanim_jax[beam]'") from error
    options = how.options if how.options is not None else PipelineOptions(list(how.arguments))
    try:
        with beam.Pipeline(runner=how.runner, options=options) as pipeline:
            (
                pipeline
                | "Parts" >> beam.Create(list(parts))
                | "Spread" >> beam.Reshuffle()  # else a runner may fuse the steps and make all parts in one worker
                | "Make" >> beam.Map(_make_quietly, settings, folder)
            )
    except Exception as error:  # runners wrap what a worker raised in exceptions of their own
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        first = (str(cause or error).splitlines() or [""])[0]
        raise UserError(f"Beam stopped: {first}") from error


def share(parts: Sequence[Part], worker: tuple[int, int]) -> list[Part]:
    """The parts that worker i of n makes: every n-th."""
    index, count = worker
    return list(parts)[index::count]


def _make_quietly(part: Part, settings: Settings, folder: Path) -> str:
    make_part(part, settings, folder)
    return part.stem


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked: this process may have threads (JAX, FFmpeg), and a fork would copy their locks.
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_begin)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin() -> None:
    """A worker leaves Ctrl-C to its parent, and does not outlive it, even where that is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
