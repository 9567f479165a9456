"""How are checkpoints in a bucket visible only when complete, and how are they fetched?

A bucket has no folders that could be renamed. So the list of checksums,
`checkpoints/STEP/SHA256SUMS`, is written last and deleted first: a checkpoint is valid
while that object exists.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from maskanim_jax.buckets.address import Address
from maskanim_jax.buckets.client import Bucket, Stored, in_parallel, md5_of
from maskanim_jax.buckets.lock import RunLock
from maskanim_jax.utils.atomic_files import sha256_of
from maskanim_jax.utils.checksums import SUMS, listed_sums

FOLDER, SET_ASIDE = "checkpoints", "set_aside"
OBJECT = re.compile(rf"(?P<run>(?:.+/)?){FOLDER}/(?P<step>\d+)/(?P<file>.+)")
"""The name of a checkpoint's object, relative to a run or to a folder of runs."""
_SMALL = (SUMS, "metrics/metrics", "info/metadata")
"""Files that show which checkpoints exist and how good each one is."""


class Found(NamedTuple):
    """A checkpoint's objects: the bucket's metadata by name within the checkpoint."""

    run: str
    step: int
    files: dict[str, Stored]

    @property
    def is_whole(self) -> bool:
        return SUMS in self.files


def found_in(objects: dict[str, Stored]) -> list[Found]:
    """All checkpoints, complete or not, among objects with relative names."""
    grouped: dict[tuple[str, int], dict[str, Stored]] = {}
    for name, stored in objects.items():
        if match := OBJECT.fullmatch(name):
            grouped.setdefault((match["run"], int(match["step"])), {})[match["file"]] = stored
    return [Found(run, step, files) for (run, step), files in grouped.items()]


def pull_small(bucket: Bucket, address: Address, folder: Path, found: list[Found]) -> None:
    """Mirrors the bucket's complete checkpoints in the local folder and removes others; arrays are
    fetched when they are read.
    """
    whole = {folder / each.run / FOLDER / str(each.step): each for each in found if each.is_whole}
    for path in folder.rglob(f"{FOLDER}/*"):
        sums = path / SUMS
        if path.is_dir() and not (
            path in whole and sums.is_file() and md5_of(sums.read_bytes()) == whole[path].files[SUMS].md5
        ):
            shutil.rmtree(path)
    for path, each in whole.items():
        source = address / f"{each.run}{FOLDER}/{each.step}"
        for name in _SMALL:
            if name in each.files and not (path / name).exists():
                bucket.download(f"{source.prefix}{name}", path / name, each.files[name])
        when = time.time() - each.files[SUMS].age
        os.utime(path, (when, when))


class RemoteCheckpoints:
    """The checkpoints of a run in a bucket; `folder` is the local run folder from which they are
    uploaded and to which they are fetched.
    """

    def __init__(
        self, bucket: Bucket, address: Address, folder: Path, lock: RunLock | None, push: Callable[[], object]
    ) -> None:
        self._bucket, self._address, self._folder, self._lock, self._push = bucket, address, folder, lock, push

    def _prefix(self, step: int) -> str:
        return (self._address / f"{FOLDER}/{step}").prefix

    def _objects(self) -> list[Found]:
        prefix = self._address.prefix
        listed = self._bucket.list(f"{prefix}{FOLDER}/")
        return found_in({name.removeprefix(prefix): stored for name, stored in listed.items()})

    def sweep(self) -> None:
        """Removes checkpoints that a killed process left incomplete.

        Only the holder of the lock may call it.
        """
        for found in self._objects():
            if not found.is_whole:
                self._delete(found)

    def _delete(self, found: Found) -> None:
        prefix = self._prefix(found.step)
        if found.is_whole:
            self._bucket.delete(prefix + SUMS)  # from here on it is not valid
        in_parallel(
            functools.partial(self._bucket.delete, prefix + name) for name in sorted(found.files) if name != SUMS
        )

    def publish(self, step: int) -> None:
        """Uploads a complete local checkpoint; it is valid once its last object is written.

        Raises UserError if the lock was lost or the bucket fails, and OSError for the disk.
        """
        self._push()  # first, since a run that resumes from this checkpoint needs the log up to its step
        local, prefix = self._folder / FOLDER / str(step), self._prefix(step)
        files = [path for path in sorted(local.rglob("*")) if path.is_file() and path.name != SUMS]
        in_parallel(
            functools.partial(self._bucket.upload, prefix + path.relative_to(local).as_posix(), path) for path in files
        )
        if self._lock is not None:
            self._lock.check()
        self._bucket.upload(prefix + SUMS, local / SUMS)

    def drop(self, step: int) -> None:
        """Deletes a checkpoint."""
        for found in self._objects():
            if found.step == step:
                self._delete(found)

    def move_aside(self, step: int, name: str) -> None:
        """Moves a checkpoint to `set_aside/NAME` of the run."""
        for found in self._objects():
            if found.step == step:
                target = (self._address / f"{SET_ASIDE}/{name}").prefix
                for file in sorted(found.files, key=lambda file: file == SUMS):
                    self._bucket.copy(self._prefix(step) + file, target + file)
                self._delete(found)

    def set_aside_names(self) -> set[str]:
        """The names in `set_aside/`."""
        prefix = (self._address / SET_ASIDE).prefix
        return {name.removeprefix(prefix).partition("/")[0] for name in self._bucket.list(prefix)}

    def fetch(self, step: int) -> None:
        """Downloads the files of a checkpoint that are missing or different locally; the reader
        verifies all checksums again.
        """
        local, prefix = self._folder / FOLDER / str(step), self._prefix(step)
        sums = listed_sums(local)
        found = next((each for each in self._objects() if each.step == step and each.is_whole), None)
        if found is None:
            return
        wanted = {
            name: stored
            for name, stored in found.files.items()
            if not (local / name).is_file() or (name in sums and sha256_of(local / name) != sums[name])
        }
        in_parallel(
            functools.partial(self._bucket.download, prefix + name, local / name, stored)
            for name, stored in wanted.items()
        )
