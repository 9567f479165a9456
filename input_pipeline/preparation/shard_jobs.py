"""Which clips go into a shard, and how is it made?

A shard holds whole clips and depends only on the list of clips, so every machine makes the
same bytes. Its manifest (a small JSON file beside it) is written last: a shard with a
manifest is finished and verified, and is not made again after a kill unless its clips or
the settings have changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from input_pipeline.preparation.clips import RawClip
from input_pipeline.preparation.decode import SquareFrames, square_frames
from maskanim_jax.errors import UserError
from maskanim_jax.utils.atomic_files import sha256_of

if TYPE_CHECKING:
    from input_pipeline.preparation.shard_writer import FrameWriter

MAX_SHARDS = 256
"""Shards per split. A reader keeps each of them open, and the usual limit is 1,024 open files."""
ShardManifest = dict[str, Any]
"""key, records, bytes (of the records), file_bytes, sha256 (of the file; None without
records), clips, skipped.
"""

_SPOOL_BYTES = 8 << 20  # above this, the encoded frames of a clip are buffered on disk
_MAKERS = ("pillow", "av", "array_record", "tensorflow-datasets")  # the bytes depend on their versions


@dataclass(frozen=True)
class Settings:
    """How frames are stored. `strict`: the first unreadable clip is an error."""

    size: int
    encoding: str = "jpeg"
    quality: int = 95
    min_frames: int = 2
    strict: bool = False


@dataclass(frozen=True)
class ShardSpec:
    """Shard `number` of `of` of a split, before empty shards are dropped."""

    split: str
    number: int
    of: int
    clips: tuple[RawClip, ...]

    @property
    def stem(self) -> str:
        """The name of its file and manifest, without suffix."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}"


def plan(raw: dict[str, list[RawClip]]) -> list[ShardSpec]:
    """Plans the shards of all splits: consecutive clips, evenly divided, at
    most MAX_SHARDS per split.
    """
    specs = []
    for split, clips in raw.items():
        of = min(len(clips), MAX_SHARDS)
        ends = [len(clips) * number // of for number in range(of + 1)]
        specs += [ShardSpec(split, number, of, tuple(clips[ends[number] : ends[number + 1]])) for number in range(of)]
    return specs


def spec_key(spec: ShardSpec, settings: Settings) -> str:
    """A hash of all that determines the shard's bytes.

    These are the settings, library versions, and the clips' names, file
    sizes and modification times.
    """
    stated = [settings.size, settings.encoding, settings.quality, settings.min_frames, spec.split]
    digest = hashlib.sha256(repr([*stated, *(version(package) for package in _MAKERS)]).encode())
    for clip in spec.clips:
        digest.update(repr((clip.name, clip.identity, clip.kind, clip.clip_range)).encode("utf-8", "surrogateescape"))
        files = sorted(clip.path.iterdir()) if clip.kind == "folder" else [clip.path]
        for file in files:
            with contextlib.suppress(OSError):  # a broken link is reported when it is read
                about = file.stat()
                digest.update(repr((file.name, about.st_size, about.st_mtime_ns)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def finished(spec: ShardSpec, key: str, folder: Path) -> ShardManifest | None:
    """The shard's manifest, if the shard is finished and its key is unchanged."""
    try:
        manifest = json.loads((folder / f"{spec.stem}.json").read_text(encoding="utf-8"))
        if manifest["key"] != key:
            return None
        if manifest["sha256"] and (folder / f"{spec.stem}.array_record").stat().st_size != manifest["file_bytes"]:
            return None
        return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keys_there(folder: Path | None) -> set[str]:
    """The keys of all manifests in the folder."""
    keys = set()
    for path in folder.glob("*.json") if folder else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            keys.add(json.loads(path.read_text(encoding="utf-8"))["key"])
    return keys


def make_shard(spec: ShardSpec, settings: Settings, folder: Path | None) -> ShardManifest:
    """Makes one shard in `folder`, verifies it, and returns its manifest; a finished shard is kept.

    With `folder` None nothing is written: clips are decoded, cropped and encoded to check them.
    Raises UserError when the folder cannot be written to, the shard does not read back identically,
    or (strict) a clip cannot be read.
    """
    if folder is None:
        return _ShardJob(spec, settings, None, Path(tempfile.gettempdir())).manifest("")
    key = spec_key(spec, settings)
    if manifest := finished(spec, key, folder):
        return manifest
    from input_pipeline.preparation.shard_writer import FrameWriter
    from input_pipeline.preparation.verify import verify_shard

    temporary = folder / f".{spec.stem}.{uuid.uuid4().hex}.tmp"
    try:
        with FrameWriter(temporary, settings.size, settings.encoding) as writer:
            job = _ShardJob(spec, settings, writer, folder)
            manifest = job.manifest(key)
        if manifest["records"]:
            verify_shard(temporary, manifest["clips"], settings.size, settings.encoding)
            manifest |= {"file_bytes": temporary.stat().st_size, "sha256": sha256_of(temporary)}
            os.replace(temporary, folder / f"{spec.stem}.array_record")
        write_json(folder / f"{spec.stem}.json", manifest)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError for a full disk
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} could not be written ({reason}); free space or choose another --output") from error
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


class _ShardJob:
    """Encodes the clips of one shard and collects its manifest."""

    def __init__(self, spec: ShardSpec, settings: Settings, writer: FrameWriter | None, folder: Path) -> None:
        from input_pipeline.preparation.shard_writer import encoder

        self._spec, self._settings, self._writer, self._folder = spec, settings, writer, folder
        self._encode = encoder(settings.encoding, settings.quality)
        self._encoded_bytes = 0

    def manifest(self, key: str) -> ShardManifest:
        clips: list[dict[str, Any]] = []
        skipped: list[dict[str, str]] = []
        for clip in self._spec.clips:
            try:
                clips.append(self._clip(clip))
            except UserError as error:
                if self._settings.strict:
                    raise
                skipped.append(
                    {"split": self._spec.split, "clip": printable(clip.path.name), "reason": printable(str(error))}
                )
        records = sum(clip["count"] for clip in clips)
        size = self._writer.bytes if self._writer else self._encoded_bytes
        return {
            "key": key,
            "records": records,
            "bytes": size,
            "file_bytes": 0,
            "sha256": None,
            "clips": clips,
            "skipped": skipped,
        }

    def _clip(self, clip: RawClip) -> dict[str, Any]:
        """Encodes a clip, then writes its records: a clip is stored completely or not at all."""
        if printable(clip.name) != clip.name:
            raise UserError(f"{clip.path} has a name that is not UTF-8; rename it")
        with tempfile.SpooledTemporaryFile(_SPOOL_BYTES, dir=str(self._folder)) as spool:
            (fps, _, resampled), lengths = self._spool(clip, spool)
            spool.seek(0)
            digest = hashlib.sha256()
            for index, length in enumerate(lengths):
                frame = spool.read(length)
                digest.update(frame)
                self._encoded_bytes += length
                if self._writer:
                    self._write(clip, frame, index, len(lengths), fps)
        return {
            "name": clip.name,
            "identity": clip.identity,
            "count": len(lengths),
            "fps": f"{fps.numerator}/{fps.denominator}",
            "sha256": digest.hexdigest(),
            **({"resampled": True} if resampled else {}),
        }

    def _spool(self, clip: RawClip, spool: IO[bytes]) -> tuple[SquareFrames, list[int]]:
        stored = square_frames(clip, self._settings.size)
        lengths = [spool.write(self._encode(frame)) for frame in stored.frames]
        if len(lengths) < self._settings.min_frames:
            plural = "frame" if len(lengths) == 1 else "frames"
            raise UserError(
                f"{clip.path} has {len(lengths)} {plural}, fewer than {self._settings.min_frames}; "
                "give a longer clip or remove it"
            )
        return stored, lengths

    def _write(self, clip: RawClip, frame: bytes, index: int, count: int, fps: Fraction) -> None:
        from input_pipeline.preparation.shard_writer import FrameRecord

        assert self._writer is not None
        split, size = self._spec.split, self._settings.size
        record = FrameRecord(frame, clip.name, clip.identity, split, index, count, size, fps.numerator, fps.denominator)
        self._writer.write(record)


def write_json(path: Path, value: Any) -> None:
    """Writes UTF-8 JSON atomically, through a temporary file."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def printable(text: str) -> str:
    """The text with bytes that are not UTF-8 (in file names) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
