"""How are frames stored in shards? One record is one encoded frame, in order."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from input_pipeline.preparation.catalog import set_facts
from maskanim_jax.errors import UserError

ENCODINGS = ("jpeg", "png")
VERSION = "1.0.0"
_OPTIONS = "group_size:1,uncompressed"  # records are read singly; images do not compress further, and trying makes writing 4 times slower


@dataclass(frozen=True)
class FrameRecord:
    """The fields of one record: `frame` is the encoded image of `size` x `size` pixels."""

    frame: bytes
    clip: str
    identity: str
    split: str
    index: int
    count: int
    size: int
    fps_numerator: int
    fps_denominator: int


def features(size: int, encoding: str) -> tfds.features.FeaturesDict:
    """The record's features.

    frame: (size, size, 3) uint8; clip, identity, split: text; index of the frame in its clip, count
    of the clip's frames and size in pixels: int32; the frame rate: an exact fraction of two int64.
    """
    return tfds.features.FeaturesDict(
        {
            "frame": tfds.features.Image(shape=(size, size, 3), encoding_format=encoding),
            "clip": tfds.features.Text(),
            "identity": tfds.features.Text(),
            "split": tfds.features.Text(),
            "index": np.int32,
            "count": np.int32,
            "size": np.int32,
            "fps_numerator": np.int64,
            "fps_denominator": np.int64,
        }
    )


def dataset_info(builder: Any, name: str, size: int, encoding: str) -> tfds.core.DatasetInfo:
    """tfds's description of the set. `builder` is a tfds builder or a DatasetIdentity."""
    facts = set_facts(name)
    return tfds.core.DatasetInfo(
        builder=builder,
        description=f"{facts.title}. One frame per record, clip after clip.",
        homepage=facts.homepage or None,
        citation=facts.citation or None,
        features=features(size, encoding),
        disable_shuffling=True,
    )


def write_dataset_info(
    folder: Path, name: str, size: int, encoding: str, splits: dict[str, tuple[list[int], int]]
) -> None:
    """Writes what `tfds.builder_from_directory(folder)` needs; `splits`: records of
    each shard, total bytes.
    """
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version(VERSION), data_dir=str(folder), module_name="input_pipeline.builders"
    )
    info = dataset_info(identity, name, size, encoding)
    info.set_file_format("array_record")
    info.set_splits(tfds.core.SplitDict(split_infos(folder, name, splits)))
    info.write_to_directory(str(folder))


def split_infos(folder: Path, name: str, splits: dict[str, tuple[list[int], int]]) -> list[Any]:
    """tfds's description of the splits, with its default shard names."""
    return [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=lengths,
            num_bytes=size,
            filename_template=tfds.core.ShardedFileTemplate(
                data_dir=str(folder), dataset_name=name, split=split, filetype_suffix="array_record"
            ),
        )
        for split, (lengths, size) in splits.items()
    ]


def shard_name(name: str, split: str, number: int, of: int) -> str:
    """tfds's default name of one shard."""
    return f"{name}-{split}.array_record-{number:05d}-of-{of:05d}"


class FrameWriter:
    """Writes the records of one shard in order. The same records give the same bytes."""

    def __init__(self, path: Path, size: int, encoding: str) -> None:
        self._features = features(size, encoding)
        serialized = self._features.get_serialized_info()
        self._serializer = tfds.core.example_serializer.ExampleSerializer(serialized)
        self._writer = ArrayRecordWriter(str(path), _OPTIONS)
        self.records = 0
        self.bytes = 0

    def write(self, record: FrameRecord) -> None:
        """Appends one record."""
        example = self._serializer.get_tf_example(self._features.encode_example(asdict(record)))
        # Otherwise the order of fields differs between processes.
        serialized = example.SerializeToString(deterministic=True)
        self._writer.write(serialized)
        self.records += 1
        self.bytes += len(serialized)

    def __enter__(self) -> FrameWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


def encoder(encoding: str, quality: int) -> Callable[[np.ndarray], bytes]:
    """Returns a function from an (S, S, 3) uint8 frame to bytes: lossless png, or jpeg
    without chroma subsampling.

    Raises UserError for another encoding or a quality outside 1 to 100.
    """
    from PIL import Image

    if encoding not in ENCODINGS:
        raise UserError(f"--encoding={encoding} is unknown; choose one of {', '.join(ENCODINGS)}")
    if not 1 <= quality <= 100:
        raise UserError(f"--quality={quality} is out of range; choose from 1 to 100")
    options: dict[str, Any] = {"quality": quality, "subsampling": 0} if encoding == "jpeg" else {}

    def encode(frame: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, encoding.upper(), **options)
        return buffer.getvalue()

    return encode
