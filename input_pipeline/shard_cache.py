"""How are shards in a bucket read? They are downloaded into a local cache, ahead of the reader.

Small files come first; then several shards at a time are fetched in the background. A reader that
needs a missing shard waits for it, and that shard is fetched next. A shard gets its name only after
its size, the bucket's hash and the hashes of its clips were checked. Processes on one machine share
the cache and the work; a download that a killed process began is resumed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from input_pipeline.record import parse
from maskanim_jax.buckets.address import Address
from maskanim_jax.buckets.client import Bucket, Stored
from maskanim_jax.buckets.connection import cache_folder, cache_name
from maskanim_jax.errors import UserError
from maskanim_jax.utils.progress import ProgressBar

LIMIT_VARIABLE = "MASKANIM_SHARD_CACHE_GB"
"""Environment variable: the size limit of the cache in units of 10^9 bytes; 200 if unset."""
DOWNLOADS = 4
"""Number of parallel downloads."""
POLL_S = 0.2
SMALL = ("clips.json", "dataset_info.json", "features.json")
_USED = ".used"
_fetching: dict[Path, ShardCache] = {}


def fetch_shards(address: Address) -> Path:
    """Starts fetching the shards at `address`; returns the local folder once the index has arrived.

    Raises UserError when there are no shards, or when they exceed the cache's limit or the disk.
    """
    known = next((cache for cache in _fetching.values() if cache.address == address), None)
    if known is None:
        known = ShardCache(address)
        _fetching[known.folder] = known
    return known.folder


def fetching(folder: Path) -> ShardCache | None:
    """The cache that fetches the shards of this folder; None for a folder outside the cache."""
    return _fetching.get(Path(folder))


class ShardCache:
    """Fetches the shards of one address into `folder`. Threads may share it."""

    def __init__(self, address: Address) -> None:
        self.address, self._bucket = address, Bucket(address.bucket)
        listed = {
            name.removeprefix(address.prefix): stored for name, stored in self._bucket.list(address.prefix).items()
        }
        if SMALL[0] not in listed:
            raise UserError(
                f"{address} holds no shards (it has no {SMALL[0]}): prepare them with `python -m input_pipeline.prepare --input=ROOT "
                f"--output={address} --size=256`"
            )
        self.folder = self._claim(listed[SMALL[0]])
        with (self.folder / ".index.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process of the run may be downloading it
            for name in SMALL:
                if name in listed and not (self.folder / name).is_file():
                    self._bucket.download(address.prefix + name, self.folder / name, listed[name])
        from input_pipeline.shards import read_index

        index = read_index(self.folder)
        self._sizes: dict[str, int] = index["shards"]
        for name, size in self._sizes.items():
            if name not in listed or listed[name].size != size:
                there = f"has {listed[name].size} bytes instead of {size}" if name in listed else "is missing"
                raise UserError(f"{address / name} {there}: prepare or upload the shards again")
        self._clips = _clips_of_shards(self.folder, index)
        self._listed = listed
        self._changed = threading.Condition()
        self._missing = [name for name in self._sizes if not self._is_there(name)]
        self._failure: Exception | None = None
        if self._missing:
            self._make_room()
            _import_readers()
            here = sum(self._sizes[name] for name in self._sizes if name not in self._missing)
            self._bar = ProgressBar(
                total=sum(self._sizes.values()),
                initial=here,
                desc=f"fetch {address}",
                unit="B",
                unit_scale=True,
                leave=False,
            )
            for _ in range(min(DOWNLOADS, len(self._missing))):
                threading.Thread(target=self._work, name="shards", daemon=True).start()

    def expects(self, name: str, size: int) -> bool:
        """Whether a shard of that size is still to be fetched."""
        return self._sizes.get(name) == size and not self._is_there(name)

    def wait(self, name: str) -> None:
        """Waits for a shard, which is fetched before others.

        Raises UserError when it cannot be fetched.
        """
        if name not in self._sizes or self._is_there(name):
            return
        with self._changed:
            if name in self._missing:
                self._missing.remove(name)
                self._missing.insert(0, name)
            while not self._is_there(name):
                if self._failure is not None:
                    raise self._failure
                self._changed.wait(POLL_S)

    def wait_for_all(self) -> None:
        """Waits for all shards. Raises UserError when one cannot be fetched."""
        for name in self._sizes:
            self.wait(name)

    def _is_there(self, name: str) -> bool:
        try:
            return os.stat(self.folder / name).st_size == self._sizes[name]
        except OSError:
            return False

    def _claim(self, index: Stored) -> Path:
        """Creates the folder of this version of the set and locks it while this process lives."""
        folder = cache_folder() / "shards" / cache_name(self.address, index.md5, index.generation)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._used = (folder / _USED).open("w")  # its mtime is the time of last use
            fcntl.flock(self._used, fcntl.LOCK_SH)
        except OSError as error:
            raise UserError(
                f"{folder} can't be written ({error.strerror}): free it, or set MASKANIM_BUCKET_CACHE to another disk"
            ) from error
        return folder

    def _make_room(self) -> None:
        """Removes the least recently used sets. Raises UserError when that is not enough."""
        total, missing = sum(self._sizes.values()), sum(self._sizes[name] for name in self._missing)
        limit = _limit()
        if total > limit:
            raise UserError(
                f"{self.address} has {total / 1e9:.1f} GB of shards, more than the {limit / 1e9:g} GB of the cache: set {LIMIT_VARIABLE} higher, "
                "or copy them to a disk and give that folder"
            )
        others = [
            folder for folder in self.folder.parent.iterdir() if folder != self.folder and (folder / _USED).exists()
        ]
        others.sort(key=lambda folder: (folder / _USED).stat().st_mtime)
        held = {folder: sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) for folder in others}
        for folder in others:
            if sum(held.values()) + total <= limit and shutil.disk_usage(self.folder).free >= missing:
                break
            if _remove_unused(folder):
                del held[folder]
        if (free := shutil.disk_usage(self.folder).free) < missing:
            raise UserError(
                f"{self.folder} has {free / 1e9:.1f} GB free, but {missing / 1e9:.1f} GB of {self.address} are still to be fetched: free space, or "
                "set MASKANIM_BUCKET_CACHE to another disk"
            )

    def _work(self) -> None:
        """Runs in a thread: fetches missing shards that no other thread or process is fetching."""
        while True:
            with self._changed:
                self._missing = [name for name in self._missing if not self._is_there(name)]
                missing = list(self._missing)
            if not missing or self._failure is not None:
                self._bar.close()
                return
            try:
                if not any(self._fetch(name) for name in missing):
                    time.sleep(POLL_S)  # others are fetching them
            except OSError as error:
                self._failure = UserError(
                    f"{self.folder} can't be written ({error.strerror or error}): free space, then start again"
                )
            except Exception as error:  # raised in the reader, see `wait`
                self._failure = error
            with self._changed:
                self._changed.notify_all()

    def _fetch(self, name: str) -> bool:
        """Fetches and verifies one shard unless it exists or is being
        fetched; returns whether it did.
        """
        with (self.folder / f".{name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if self._is_there(name):
                return False
            arrived = self.folder / f".{name}.arrived"
            self._bucket.download(self.address.prefix + name, arrived, self._listed[name], self._bar.update)
            if (clip := _damaged_clip(arrived, self._clips.get(name, []))) is not None:
                arrived.unlink()
                raise UserError(f"{self.address / name} is damaged at clip {clip}: prepare or upload the shards again")
            os.replace(arrived, self.folder / name)
            return True


def _limit() -> float:
    text = os.environ.get(LIMIT_VARIABLE, "200")
    try:
        if (gigabytes := float(text)) > 0:
            return gigabytes * 1e9
    except ValueError:
        pass
    raise UserError(f"{LIMIT_VARIABLE}={text} must be a number of GB above 0")


def _remove_unused(folder: Path) -> bool:
    with (folder / _USED).open("a") as used:
        try:
            fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        return True


def _clips_of_shards(folder: Path, index: dict[str, Any]) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """Maps each shard to the clips that lie entirely in it: (first record within
    the shard, index entry).
    """
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    try:
        described = json.loads((folder / "dataset_info.json").read_text())["splits"]
        for split in described:
            lengths, first = [int(length) for length in split["shardLengths"]], 0
            for number, length in enumerate(lengths):
                ending = f"-{split['name']}.array_record-{number:05d}-of-{len(lengths):05d}"
                name = next((each for each in index["shards"] if each.endswith(ending)), ending)
                found[name] = [
                    (clip["first"] - first, clip)
                    for clip in index["splits"][split["name"]]["clips"]
                    if first <= clip["first"] and clip["first"] + clip["count"] <= first + length
                ]
                first += length
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/dataset_info.json cannot be read ({error}); prepare the shards again") from error
    return found


def _import_readers() -> None:
    """Called in this thread, because tensorflow_datasets imports its parts lazily and threads that
    import at once would deadlock.
    """

    with contextlib.suppress(ValueError):
        parse(b"no record")


def _damaged_clip(shard: Path, clips: list[tuple[int, dict[str, Any]]]) -> str | None:
    """The name of the first clip whose encoded frames do not match their
    hash; None if all match.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    clip: dict[str, Any] = {"name": "?"}
    try:
        with contextlib.closing(ArrayRecordReader(str(shard), "readahead_buffer_size:0")) as reader:
            for first, clip in clips:
                digest = hashlib.sha256()
                for record in _records(reader, first, clip["count"]):
                    digest.update(parse(record).picture)
                if "sha256" in clip and digest.hexdigest() != clip["sha256"]:
                    return str(clip["name"])
    except Exception:  # array_record raises many types; all of them mean damage
        return str(clip["name"])
    return None


def _records(reader: Any, first: int, count: int, at_once: int = 64) -> Iterator[bytes]:
    for start in range(first, first + count, at_once):
        yield from reader.read(list(range(start, min(start + at_once, first + count))))
