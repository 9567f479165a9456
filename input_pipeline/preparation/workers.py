"""Where are shards made?

In this process, on all cores, on worker i of n machines, or with Apache Beam.
"""

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

from input_pipeline.preparation.shard_jobs import Settings, ShardManifest, ShardSpec, make_shard
from maskanim_jax.errors import UserError

Done = Callable[[ShardSpec, ShardManifest], None]
"""Called in this process for each finished shard, in any order."""


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_shards(
    specs: Sequence[ShardSpec], settings: Settings, folder: Path | None, processes: int, done: Done
) -> None:
    """Makes all shards in `processes` processes (1: in this one). The files do
    not depend on the number.

    Raises UserError like `make_shard`, or when a process dies; finished shards are kept.
    """
    if min(processes, len(specs)) <= 1:
        for spec in specs:
            done(spec, make_shard(spec, settings, folder))
        return
    with _pool(min(processes, len(specs))) as pool:
        waiting = {pool.submit(make_shard, spec, settings, folder): spec for spec in specs}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    done(waiting.pop(future), future.result())
        except BrokenProcessPool as error:
            raise UserError(
                "a worker process died, perhaps out of memory; repeat the command with fewer --workers to resume"
            ) from error


@dataclass(frozen=True)
class Beam:
    """How to run an Apache Beam pipeline: command line arguments (`--runner=...`
    etc.), or Beam's own objects.
    """

    arguments: tuple[str, ...] = ()
    options: Any = None
    runner: Any = None


def make_shards_on_beam(specs: Sequence[ShardSpec], settings: Settings, folder: Path, how: Beam) -> None:
    """Makes all shards in an Apache Beam pipeline, by default on the local runner.

    The runner's workers need this package and the same absolute paths for the input and `folder`.
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
                | "Parts" >> beam.Create(list(specs))
                | "Spread" >> beam.Reshuffle()  # otherwise a runner may fuse the steps into one worker
                | "Make" >> beam.Map(_make_quietly, settings, folder)
            )
    except Exception as error:  # runners wrap a worker's exception in their own
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, UserError):
            cause = cause.__cause__ or cause.__context__
        first = (str(cause or error).splitlines() or [""])[0]
        raise UserError(f"Beam stopped: {first}") from error


def share(specs: Sequence[ShardSpec], worker: tuple[int, int]) -> list[ShardSpec]:
    """The shards of worker i of n: every n-th."""
    index, count = worker
    return list(specs)[index::count]


def _make_quietly(spec: ShardSpec, settings: Settings, folder: Path) -> str:
    make_shard(spec, settings, folder)
    return spec.stem


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
    """Makes a worker ignore Ctrl-C, which its parent handles, and exit when the parent dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
