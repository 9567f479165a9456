"""How can code that only knows local folders use a run's folder in a bucket?

`opened` and `fetched` provide a local working copy. The bucket takes precedence: its contents are
fetched first, and local leftovers are deleted. Small files (log, pictures, TensorBoard, pages,
metrics) are uploaded completely when they change; `checkpoints.py` uploads checkpoints.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from maskanim_jax.buckets.address import Address
from maskanim_jax.buckets.checkpoints import FOLDER, OBJECT, SET_ASIDE, RemoteCheckpoints, found_in, pull_small
from maskanim_jax.buckets.client import Bucket, Stored, in_parallel, md5_of
from maskanim_jax.buckets.connection import cache_folder, cache_name
from maskanim_jax.buckets.lock import RunLock
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import atomic_write

MIN_PUSH_INTERVAL_S = 2.0
"""Seconds between two background uploads."""
_open: dict[Path, WorkingCopy] = {}


class WorkingCopy:
    """A local copy of a folder in a bucket. `training`: this process holds the bucket's lock.

    With several processes, each has its own copy, and only process 0 writes to the bucket.
    """

    def __init__(self, address: Address, training: bool, read_only: bool = False) -> None:
        self.address, self.bucket, self.read_only = address, Bucket(address.bucket), read_only
        self.folder, self._slot = _claim_folder(address)
        self.leader = _process_index() == 0
        self._in_bucket: dict[str, tuple[int, int]] = {}
        """Files whose current version is in the bucket: (size, time of change in ns) by name."""
        self._pushing = threading.Lock()
        self._wanted, self._closed = threading.Event(), threading.Event()
        self._failure: UserError | None = None
        self._pusher: threading.Thread | None = None
        self.lock = RunLock(self.bucket, address) if training and self.leader else None
        try:
            if self.lock is not None:
                self.lock.acquire()
            self.pull()
        except BaseException:
            self.close(push=False)
            raise

    def pull(self) -> None:
        """Makes the local folder equal to the bucket's, except for checkpoints'
        arrays and `set_aside/`.
        """
        prefix = self.address.prefix
        objects = {
            name.removeprefix(prefix): stored
            for name, stored in self.bucket.list(prefix).items()
            if not name.endswith("/")
        }
        pull_small(self.bucket, self.address, self.folder, found_in(objects))
        wanted = {name: stored for name, stored in objects.items() if _is_small(name)}
        for name in set(self._files()) - wanted.keys():
            (self.folder / name).unlink()
        in_parallel(functools.partial(self._pull_one, name, stored) for name, stored in wanted.items())
        self._in_bucket = self._files()

    def _pull_one(self, name: str, stored: Stored) -> None:
        path = self.folder / name
        if not (path.is_file() and path.stat().st_size == stored.size and md5_of(path) == stored.md5):
            self.bucket.download(self.address.prefix + name, path, stored)
        when = time.time() - stored.age
        os.utime(path, (when, when))  # keeps files newer than the checkpoints they belong to

    def _files(self) -> dict[str, tuple[int, int]]:
        """The small local files."""
        found: dict[str, tuple[int, int]] = {}
        for parent, folders, files in os.walk(self.folder):
            inner = Path(parent).relative_to(self.folder)
            folders[:] = [name for name in folders if _is_small(f"{(inner / name).as_posix()}/")]
            for file in files:
                name = (inner / file).as_posix()
                if _is_small(name) and not (path := self.folder / name).is_symlink():
                    with contextlib.suppress(FileNotFoundError):  # a temporary file
                        facts = path.stat()
                        found[name] = facts.st_size, facts.st_mtime_ns
        return found

    def push(self) -> None:
        """Uploads changed small files, and deletes those that were deleted locally.

        Raises UserError, OSError.
        """
        if not self.leader or self.read_only:
            return
        with self._pushing:
            if self.lock is not None:
                self.lock.check()
            now = self._files()
            changed = [name for name, facts in now.items() if self._in_bucket.get(name) != facts]
            in_parallel(functools.partial(self._push_one, name) for name in changed)
            for name in self._in_bucket.keys() - now.keys():
                self.bucket.delete(self.address.prefix + name)
            self._in_bucket = now

    def _push_one(self, name: str) -> None:
        # Read once, so that a growing log is uploaded in a consistent state.
        with contextlib.suppress(FileNotFoundError):
            self.bucket.upload(self.address.prefix + name, (self.folder / name).read_bytes())

    def push_soon(self) -> None:
        """Lets a thread `push`; raises the error of an earlier one."""
        if self._failure is not None:
            raise self._failure
        if self.leader and self._pusher is None:
            self._pusher = threading.Thread(target=self._push_in_background, name="bucket upload", daemon=True)
            self._pusher.start()
        self._wanted.set()

    def _push_in_background(self) -> None:
        while True:
            self._wanted.wait()
            if self._closed.is_set():
                return
            self._wanted.clear()
            try:
                self.push()
            except UserError as error:
                self._failure = error
            except OSError as error:
                self._failure = UserError(f"{self.folder} can't be read ({error.strerror}): check the disk")
            self._closed.wait(MIN_PUSH_INTERVAL_S)

    def close(self, push: bool = True) -> None:
        """Uploads changes if `push`, then releases the lock and the local folder.

        Raises UserError.
        """
        try:
            self._closed.set()
            self._wanted.set()
            if self._pusher is not None:
                self._pusher.join()
            if push:
                self.push()
        finally:
            _open.pop(self.folder, None)
            if self.lock is not None:
                self.lock.release()
            os.close(self._slot)

    def in_words(self, text: str) -> str:
        """`text` with paths in the local folder replaced by addresses in the bucket."""
        return text.replace(str(self.folder), str(self.address))

    def checkpoints_of(self, folder: Path) -> RemoteCheckpoints:
        """The remote checkpoints of the run in the local `folder`, which is
        this folder or one in it.
        """
        inner = folder.relative_to(self.folder).as_posix()
        address = self.address if inner == "." else self.address / inner
        return RemoteCheckpoints(self.bucket, address, folder, self.lock, self.push)


def copy_of(folder: Path) -> WorkingCopy | None:
    """The working copy that is, or contains, a local folder; None for all others."""
    path = folder.absolute()
    return next((_open[each] for each in (path, *path.parents) if each in _open), None)


def in_words(text: str) -> str:
    """`text` with paths in working copies replaced by addresses."""
    for copy in list(_open.values()):
        text = copy.in_words(text)
    return text


@contextlib.contextmanager
def opened(address: Address, training: bool) -> Iterator[Path]:
    """See `local_paths.opened`."""
    known = next((each for each in _open.values() if each.address == address and not each.read_only), None)
    if known is not None and not training:
        yield known.folder
        return
    copy = WorkingCopy(address, training)
    _open[copy.folder] = copy
    try:
        yield copy.folder
    except BaseException as error:
        if isinstance(error, UserError) and not isinstance(error.__cause__, OSError):  # that is on a local disk
            error.args = (copy.in_words(str(error)),)
        with contextlib.suppress(UserError, OSError):
            copy.close()
        raise
    copy.close()
    _meet()


def fetched(address: Address, may_lack: bool) -> Path:
    """See `local_paths.fetched`."""
    run, inner = address, ""
    if match := re.fullmatch(rf"(.*?)/?({FOLDER}(?:/[0-9]+)?)", address.folder):
        run, inner = Address(address.bucket, match[1]), match[2]
    copy = next((each for each in _open.values() if each.address == run), None)
    if copy is None:
        copy = WorkingCopy(run, training=False, read_only=True)
        _open[copy.folder] = copy
        atexit.register(copy.close)
    elif copy.read_only:
        copy.pull()
    if not may_lack and not any(copy.folder.iterdir()):
        raise UserError(f"{run} is empty: give the --workdir of a run")
    return copy.folder / inner


def fetched_file(address: Address, name: str) -> Path:
    """See `local_paths.fetched_file`."""
    folder = _cache_folder(address) / "files"
    folder.mkdir(parents=True, exist_ok=True)
    content = Bucket(address.bucket).read(address.prefix + name)
    if content is None:
        (folder / name).unlink(missing_ok=True)
    else:
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(content)
    return folder


def _is_small(name: str) -> bool:
    """Whether a file (or, with a trailing /, a folder) is mirrored: not a checkpoint, hidden,
    temporary or in `set_aside/`.
    """
    parts = name.rstrip("/").split("/")
    hidden = any(part.startswith(".") and part != "." for part in parts) or parts[-1].endswith(".part")
    in_checkpoints = FOLDER in (parts if name.endswith("/") else parts[:-1]) or OBJECT.fullmatch(name) is not None
    return not (hidden or in_checkpoints or SET_ASIDE in parts)


def _cache_folder(address: Address) -> Path:
    return cache_folder() / "runs" / cache_name(address)


def _claim_folder(address: Address) -> tuple[Path, int]:
    """The address's first local folder that no other process of this machine uses, and the
    descriptor of its lock, to be closed.
    """
    base = _cache_folder(address)
    try:
        base.mkdir(parents=True, exist_ok=True)
        for slot in range(1000):
            number = os.open(base / f"{slot}.lock", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(number)
                continue
            folder = base / str(slot)
            folder.mkdir(exist_ok=True)
            return folder, number
    except OSError as error:
        raise UserError(
            f"{base} can't be written ({error.strerror}): free it, or set MASKANIM_BUCKET_CACHE to another disk"
        ) from error
    raise UserError(f"{base} is used by 1,000 processes: end some of them")


def _process_index() -> int:
    """This process's index in the run; 0 if it is the only one. Does not initialise devices."""
    if "jax" not in sys.modules:
        return 0
    from jax._src.distributed import global_state

    return int(global_state.process_id or 0)


def _meet() -> None:
    """Waits until all processes have reached this point."""
    if "jax" not in sys.modules:
        return
    from jax._src.distributed import global_state

    if (global_state.num_processes or 1) > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(f"bucket {next(_meetings)}")


_meetings = iter(range(1 << 62))
