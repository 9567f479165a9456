"""How is one frame read back from the shards?"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import os
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from input_pipeline.bad_records import BadRecord, MissingShardError
from input_pipeline.record import decode, parse
from maskanim_jax.errors import UserError
from maskanim_jax.utils import json_files

if TYPE_CHECKING:
    from input_pipeline.shard_cache import ShardCache

INDEX = "clips.json"
INDEX_VERSION = 1
MAX_SIZE = 8192
MAX_INDEX = 1 << 30
"""Size limit of the index in bytes; a million clips take a quarter of it."""


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """One clip: its records are first, ..., first + count - 1 of its split; fps is exact."""

    name: str
    identity: str
    first: int
    count: int
    fps: Fraction


class Split:
    """One split of a shards folder, with random access to frames.

    Can be pickled and shared by threads.
    """

    def __init__(self, shards: Path, name: str, index: dict[str, Any], fingerprint: str) -> None:
        self.shards = shards
        self.name = name
        self.size: int = index["size"]
        self.fingerprint = fingerprint
        try:
            self.clips = [_clip(entry) for entry in index["splits"][name]["clips"]]
        except (ValueError, LookupError, TypeError, ZeroDivisionError) as error:
            raise UserError(f"{shards / INDEX} is damaged ({name}: {error}); prepare the shards again") from error
        self._lock = threading.Lock()
        self._source: Any = None
        self._ends: list[int] = []
        self._files: list[Path] = []
        self._bytes: dict[str, int] = index["shards"]
        self._cache = _cache_of(shards)

    def __repr__(self) -> str:
        return f"Split({str(self.shards)!r}, {self.name!r}, {len(self.clips)} clips)"

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_lock", "_source", "_cache")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock(), _source=None, _cache=_cache_of(state["shards"]))

    def frame(self, clip_number: int, index: int, out: np.ndarray | None = None) -> np.ndarray:
        """Reads frame `index` of a clip as (S, S, 3) uint8 RGB, into `out` if
        given; reads one record.

        Raises IndexError for a frame that the clip does not have, BadRecord when the record is
        damaged, and MissingShardError when the shard is missing or changed its size.
        """
        clip = self.clips[clip_number]
        if not 0 <= index < clip.count:
            raise IndexError(f"clip {clip.name} has {clip.count} frames, so there is no frame {index}")
        record = self._record(clip_number, index)
        frame = np.empty((self.size, self.size, 3), np.uint8) if out is None else out
        try:
            stored = parse(record)
            if (stored.clip, stored.number) != (clip.name, index):
                raise ValueError("another frame")
            decode(stored.picture, frame)
        except ValueError as error:
            raise self._damaged(clip_number, index) from error
        return frame

    def frames(self, clip_number: int) -> Iterator[np.ndarray]:
        """Yields all frames of a clip in order, holding one in memory at a time."""
        for index in range(self.clips[clip_number].count):
            yield self.frame(clip_number, index)

    def _record(self, clip_number: int, index: int) -> bytes:
        source = self._source or self._open()
        clip = self.clips[clip_number]
        number = clip.first + index
        file = self._file(number)
        if self._cache is not None:
            self._cache.wait(file.name)
        self._check_unchanged(file, clip, index)
        try:
            return source[number]
        except Exception as error:  # array_record raises many types; all of them mean damage
            self._check_unchanged(file, clip, index)
            raise self._damaged(clip_number, index) from error

    def _open(self) -> Any:
        with self._lock:
            if self._source is None:
                import tensorflow_datasets as tfds

                try:
                    builder = tfds.builder_from_directory(str(self.shards))
                    info = builder.info.splits[self.name]
                    self._ends = list(itertools.accumulate(info.shard_lengths))
                    self._files = [self.shards / Path(path).name for path in info.filepaths]
                    raw = tfds.decode.DeserializeMethod.RAW_BYTES
                    self._source = builder.as_data_source(self.name, deserialize_method=raw)
                except Exception as error:
                    raise UserError(f"{self.shards} cannot be opened ({error}); prepare it again") from error
            return self._source

    def _file(self, record: int) -> Path:
        number = bisect.bisect_right(self._ends, record)
        return self._files[number] if number < len(self._files) else self.shards

    def _check_unchanged(self, file: Path, clip: ClipInfo, index: int) -> None:
        # A deleted file stays readable while it is open: without this check the next start would be the first to fail.
        wanted = f"while reading frame {index} of clip {clip.name}"
        try:
            size = os.stat(file).st_size
        except OSError as error:
            raise MissingShardError(
                f"{file} disappeared ({error.strerror}) {wanted}; put it back and start again"
            ) from error
        if size != self._bytes.get(file.name, size):
            raise MissingShardError(
                f"{file} has {size} bytes instead of {self._bytes[file.name]} {wanted}, so it is truncated or changed; "
                "put it back or prepare the shards again"
            )

    def _damaged(self, clip_number: int, index: int) -> BadRecord:
        clip = self.clips[clip_number]
        file = self._file(clip.first + index)
        message = f"{file} is damaged at frame {index} of clip {clip.name}; prepare the shards again"
        return BadRecord(message, clip_number, index)


def _cache_of(shards: Path) -> ShardCache | None:
    """The cache that fetches these shards from a bucket; None for local shards."""
    module = sys.modules.get("input_pipeline.shard_cache")
    return None if module is None else module.fetching(shards)


def _clip(entry: dict[str, Any]) -> ClipInfo:
    """Raises ValueError, KeyError, TypeError or ZeroDivisionError for an invalid entry."""
    name, identity, first, count, fps = (entry[key] for key in ("name", "identity", "first", "count", "fps"))
    if not (isinstance(name, str) and isinstance(identity, str)):
        raise ValueError("the name of a clip is not a string")
    if not all(type(number) is int and number >= 0 for number in (first, count)):
        raise ValueError(f"the frames of clip {name[:200]} are not numbers")
    if not re.fullmatch(r"\d{1,20}(/\d{1,20}|\.\d{1,20})?", fps):  # Fraction("1e999999999") would fill the memory
        raise ValueError(f"clip {name[:200]} has no frame rate")
    return ClipInfo(name, identity, first, count, Fraction(fps))


def open_split(shards: Path, split: str) -> Split:
    """Opens one split of a folder that `python -m input_pipeline.prepare`
    wrote; reads no frame yet.

    Raises UserError when the folder is missing or not a shards folder, when it lacks the split, and
    when a shard is missing or changed its size.
    """
    shards = Path(shards)
    index = read_index(shards)
    if split not in index["splits"]:
        has = ", ".join(index["splits"])
        raise UserError(f"{shards} has no {split} split (it has {has}); prepare a ROOT with readable clips in {split}/")
    cache = _cache_of(shards)
    for name, size in index["shards"].items():
        path = shards / name
        if cache is not None and cache.expects(name, size):
            continue
        if not path.is_file():
            raise UserError(f"{path} is missing; prepare the shards again")
        if path.stat().st_size != size:
            raise UserError(
                f"{path} has {path.stat().st_size} bytes instead of {size}, so it is truncated or changed"
                f"{_clips_in(shards, index, name)}; prepare the shards again"
            )
    return Split(shards, split, index, _fingerprint(shards))


def read_index(shards: Path) -> dict[str, Any]:
    """Reads the index: size, encoding, quality, clips of each split, bytes of each shard.

    Raises UserError.
    """
    path = Path(shards) / INDEX
    make = "make one with python -m input_pipeline.prepare --input=ROOT --output=SHARDS --size=256"
    if not Path(shards).is_dir():
        raise UserError(f"{shards} is not a folder; {make}")
    if not path.is_file():
        raise UserError(f"{shards} is not a shards folder (it has no {INDEX}); {make}")
    try:
        index = json_files.read(path, MAX_INDEX)
        version = index["version"]
        complete = all(key in index for key in ("size", "splits", "shards"))
        if complete and not _plain(index):
            raise ValueError("its entries have other types")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged; prepare the shards again") from error
    if version != INDEX_VERSION or not complete:
        raise UserError(f"{path} has version {version}, this program reads {INDEX_VERSION}; prepare the shards again")
    return index


def _plain(index: dict[str, Any]) -> bool:
    """Whether size, splits and shards have valid types; shard names must not
    point outside the folder.
    """
    size, splits, shards = index["size"], index["splits"], index["shards"]
    return (
        type(size) is int
        and 0 < size <= MAX_SIZE
        and isinstance(splits, dict)
        and isinstance(shards, dict)
        and all(type(length) is int and "/" not in name for name, length in shards.items())
    )


def _fingerprint(shards: Path) -> str:
    # clips.json holds the shards' sizes and a hash of all encoded frames, taken when they were written.
    digest = hashlib.sha256()
    for name in (INDEX, "dataset_info.json", "features.json"):
        path = shards / name
        if not path.is_file():
            raise UserError(f"{path} is missing; prepare the shards again")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _clips_in(shards: Path, index: dict[str, Any], file: str) -> str:
    """A clause that names the clips in the shard; "" when that cannot be determined."""
    for split in index["splits"]:
        clips = Split(shards, split, index, "")
        try:
            clips._open()
        except UserError:
            return ""
        for number, path in enumerate(clips._files):
            if path.name == file:
                first, end = (clips._ends[number - 1] if number else 0), clips._ends[number]
                held = [clip.name for clip in clips.clips if clip.first < end and clip.first + clip.count > first]
                return f" (it holds frames of {len(held)} clips, from {held[0]} to {held[-1]})" if held else ""
    return ""
