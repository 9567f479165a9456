"""Where is unfinished work kept?

In a hidden folder beside the output, so that a killed preparation can resume.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from input_pipeline.shards import INDEX
from maskanim_jax.errors import UserError


@contextmanager
def work_folder(output: Path, exclusive: bool) -> Iterator[Path]:
    """The folder for unfinished shards of `output`; locked for others if
    `exclusive`, else shared by workers.

    `commit` removes it. After a failure it stays if it holds a finished shard, and its path is
    printed. Raises UserError when it cannot be created or another preparation is using it.
    """
    folder = _folder_of(output)
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"{folder.parent} cannot be written to ({error.strerror}); choose another --output") from error
    with lock:
        _lock(lock.fileno(), folder, exclusive)
        if exclusive:
            for leftover in folder.glob(".*.tmp"):  # of killed processes
                leftover.unlink(missing_ok=True)
        if (folder / "old").exists() and not output.exists():  # killed between the two renames of `commit`
            os.rename(folder / "old", output)
        try:
            yield folder
        finally:
            if folder.is_dir():
                if waiting := sum(1 for _ in folder.glob("*.array_record")):
                    kept = f"finished shards are kept in {folder} ({waiting}): repeat the command to resume"
                    if sys.exc_info()[0] is not None:
                        print(kept, file=sys.stderr)
                elif exclusive:
                    shutil.rmtree(folder, ignore_errors=True)


def commit(folder: Path, data: Path, output: Path) -> None:
    """Renames the finished `data` inside `folder` to `output`; removes an older `output`
    and the folder afterwards.
    """
    old = folder / "old"
    had = output.exists()
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    if had:
        shutil.rmtree(old, ignore_errors=True)
        os.rename(output, old)
    try:
        os.rename(data, output)
    except BaseException:  # Ctrl-C too
        if had:
            os.rename(old, output)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def check_output(output: Path, overwrite: bool) -> None:
    """Raises UserError when `output` is something else than shards, or shards
    that may not be replaced.
    """
    if not output.exists() and not output.is_symlink():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if not (output / INDEX).is_file():
        raise UserError(f"{output} already exists and is not a shards folder; choose another --output")
    if not overwrite:
        raise UserError(f"{output} already exists; choose another --output, or replace it with --overwrite")


def _folder_of(output: Path) -> Path:
    """Beside `output` or its first existing parent: `commit` is a rename, which
    needs the same file system.
    """
    parent, names = output.absolute().parent, [output.name]
    while not parent.exists() and not parent.is_symlink():
        names.insert(0, parent.name)
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"{parent} is not a folder; choose another --output")
    return parent / f".{'.'.join(names)}.partial"


def _lock(file: int, folder: Path, exclusive: bool) -> None:
    # File systems without locks raise another OSError; shards have unique temporary names there too.
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another preparation is running in {folder}; wait until it has finished") from error
