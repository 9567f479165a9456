"""What is one shard made of, and how is it made? Whole clips, decided by the list of clips alone, so that anybody makes the same bytes.

A part is one shard to be. Its note (a small JSON file beside it) is written last: a part that has a note is finished and verified, and
is not made again after a kill unless its clips or the settings have changed.
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

MOST_SHARDS = 256
"""Of a split. A reader keeps one file open for each, and the usual limit is 1,024 open files."""
Note = dict[str, Any]
"""key, records, bytes (of the records), file_bytes, sha256 (of the file; None when there are no records), clips, skipped."""

_SPOOL_BYTES = 8 << 20  # encoded frames of one clip beyond this wait on disk
_MAKERS = ("pillow", "av", "array_record", "tensorflow-datasets")  # their versions decide the bytes


@dataclass(frozen=True)
class Settings:
    """How frames are stored. `strict`: the first clip that cannot be read is an error."""

    size: int
    encoding: str = "jpeg"
    quality: int = 95
    min_frames: int = 2
    strict: bool = False


@dataclass(frozen=True)
class Part:
    """Shard `number` of `of` of a split, before empty ones are dropped."""

    split: str
    number: int
    of: int
    clips: tuple[RawClip, ...]

    @property
    def stem(self) -> str:
        """The name of its file and note, without suffix."""
        return f"{self.split}-{self.number:05d}-of-{self.of:05d}"


def plan(raw: dict[str, list[RawClip]]) -> list[Part]:
    """The parts of all splits: consecutive clips, equally many (but for one) in each, at most MOST_SHARDS of a split."""
    parts = []
    for split, clips in raw.items():
        of = min(len(clips), MOST_SHARDS)
        ends = [len(clips) * number // of for number in range(of + 1)]
        parts += [Part(split, number, of, tuple(clips[ends[number] : ends[number + 1]])) for number in range(of)]
    return parts


def key_of_part(part: Part, settings: Settings) -> str:
    """A hash of all that decides the part's bytes: settings, versions of the libraries, and names, sizes and times of the clips' files."""
    stated = [settings.size, settings.encoding, settings.quality, settings.min_frames, part.split]
    digest = hashlib.sha256(repr([*stated, *(version(package) for package in _MAKERS)]).encode())
    for clip in part.clips:
        digest.update(repr((clip.name, clip.identity, clip.kind, clip.piece)).encode("utf-8", "surrogateescape"))
        files = sorted(clip.path.iterdir()) if clip.kind == "folder" else [clip.path]
        for file in files:
            with contextlib.suppress(OSError):  # a link to nothing is found out when it is read
                about = file.stat()
                digest.update(repr((file.name, about.st_size, about.st_mtime_ns)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def finished(part: Part, key: str, folder: Path) -> Note | None:
    """The part's note, if it is finished and was made from the same things."""
    try:
        note = json.loads((folder / f"{part.stem}.json").read_text(encoding="utf-8"))
        if note["key"] != key:
            return None
        if note["sha256"] and (folder / f"{part.stem}.array_record").stat().st_size != note["file_bytes"]:
            return None
        return dict(note)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keys_there(folder: Path | None) -> set[str]:
    """The keys of all notes in the folder."""
    keys = set()
    for path in folder.glob("*.json") if folder else ():
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            keys.add(json.loads(path.read_text(encoding="utf-8"))["key"])
    return keys


def make_part(part: Part, settings: Settings, folder: Path | None) -> Note:
    """Makes one part in `folder`, verifies it, and returns its note; a finished one is left as it is.

    With `folder` None nothing is written: clips are decoded, cut and encoded to find out what can be read.
    Raises UserError when the folder cannot be written to, what was written reads back differently, or (strict) a clip cannot be read.
    """
    if folder is None:
        return _Making(part, settings, None, Path(tempfile.gettempdir())).note("")
    key = key_of_part(part, settings)
    if note := finished(part, key, folder):
        return note
    from input_pipeline.preparation.shard_writer import FrameWriter
    from input_pipeline.preparation.verify import verify_shard

    temporary = folder / f".{part.stem}.{uuid.uuid4().hex}.tmp"
    try:
        with FrameWriter(temporary, settings.size, settings.encoding) as writer:
            making = _Making(part, settings, writer, folder)
            note = making.note(key)
        if note["records"]:
            verify_shard(temporary, note["clips"], settings.size, settings.encoding)
            note |= {"file_bytes": temporary.stat().st_size, "sha256": sha256_of(temporary)}
            os.replace(temporary, folder / f"{part.stem}.array_record")
        write_json(folder / f"{part.stem}.json", note)
    except (OSError, RuntimeError) as error:  # array_record raises RuntimeError for a full disk
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{folder} could not be written ({reason}); free space or choose another --output") from error
    finally:
        temporary.unlink(missing_ok=True)
    return note


class _Making:
    """What is collected while the clips of one part are read."""

    def __init__(self, part: Part, settings: Settings, writer: FrameWriter | None, folder: Path) -> None:
        from input_pipeline.preparation.shard_writer import encoder

        self._part, self._settings, self._writer, self._folder = part, settings, writer, folder
        self._encode = encoder(settings.encoding, settings.quality)
        self._encoded_bytes = 0

    def note(self, key: str) -> Note:
        clips: list[dict[str, Any]] = []
        skipped: list[dict[str, str]] = []
        for clip in self._part.clips:
            try:
                clips.append(self._clip(clip))
            except UserError as error:
                if self._settings.strict:
                    raise
                skipped.append(
                    {"split": self._part.split, "clip": printable(clip.path.name), "reason": printable(str(error))}
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
        """Encodes a clip, and writes its records once its last frame has been read: a clip is stored whole or not at all."""
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
        split, size = self._part.split, self._settings.size
        record = FrameRecord(frame, clip.name, clip.identity, split, index, count, size, fps.numerator, fps.denominator)
        self._writer.write(record)


def write_json(path: Path, value: Any) -> None:
    """Writes UTF-8 JSON under a temporary name first, so that the file is whole or not there."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def printable(text: str) -> str:
    """The text with bytes that are no UTF-8 (of a file's name) written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
