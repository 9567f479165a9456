"""Where does unfinished work wait? In a hidden folder beside the output, so that a killed preparation goes on where it was."""

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
def work_folder(output: Path, alone: bool) -> Iterator[Path]:
    """The folder of the parts of `output`. With `alone` nobody else may use it meanwhile; else several workers may share it.

    On success of the whole, `put_in_place` has emptied it. After a failure it stays if it holds a finished part, and its place is printed.
    Raises UserError when it cannot be made, or another preparation of the same output is at work.
    """
    folder = _folder_of(output)
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise UserError(f"{folder.parent} cannot be written to ({error.strerror}); choose another --output") from error
    with lock:
        _lock(lock.fileno(), folder, alone)
        if alone:
            for leftover in folder.glob(".*.tmp"):  # of processes that were killed
                leftover.unlink(missing_ok=True)
        if (folder / "old").exists() and not output.exists():  # killed between the two renames of put_in_place
            os.rename(folder / "old", output)
        try:
            yield folder
        finally:
            if folder.is_dir():
                if waiting := sum(1 for _ in folder.glob("*.array_record")):
                    kept = f"finished shards wait in {folder} ({waiting}): the same command goes on from there"
                    if sys.exc_info()[0] is not None:
                        print(kept, file=sys.stderr)
                elif alone:
                    shutil.rmtree(folder, ignore_errors=True)


def put_in_place(folder: Path, data: Path, output: Path) -> None:
    """Gives the finished `data` inside `folder` the name `output`; what had that name is removed, with the folder, after that."""
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
    """Raises UserError when something else has the name, or when there are shards that may not be replaced."""
    if not output.exists() and not output.is_symlink():
        return
    if output.is_dir() and not any(output.iterdir()):
        return
    if not (output / INDEX).is_file():
        raise UserError(f"{output} exists and is not a shards folder; choose another --output")
    if not overwrite:
        raise UserError(f"{output} exists; choose another --output, or replace it with --overwrite")


def _folder_of(output: Path) -> Path:
    """Beside `output`, or where its missing parents will be: the last step is a rename on one file system."""
    parent, names = output.absolute().parent, [output.name]
    while not parent.exists() and not parent.is_symlink():
        names.insert(0, parent.name)
        parent = parent.parent
    if not parent.is_dir():
        raise UserError(f"{parent} is not a folder; choose another --output")
    return parent / f".{'.'.join(names)}.partial"


def _lock(file: int, folder: Path, alone: bool) -> None:
    # A file system without locks says so by another OSError; parts are written under names of their own there too.
    with contextlib.suppress(OSError):
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another preparation is at work in {folder}; wait until it has ended") from error
