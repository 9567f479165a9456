"""How do frames lie in the shards? One record is one encoded frame, in order."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from maskanim_jax.errors import UserError

ENCODINGS = ("jpeg", "png")
_FRAMES_PER_SHARD = 10_000


@dataclass(frozen=True)
class FrameRecord:
    """What one record says: `frame` is the encoded picture."""

    frame: bytes
    clip: str
    identity: str
    index: int
    count: int
    fps_numerator: int
    fps_denominator: int


class Frames(tfds.core.GeneratorBasedBuilder):
    """A data set of frames, readable by `tfds.builder_from_directory(SHARDS)` without this project.

    Features: frame (size, size, 3) uint8, clip and identity (text), index of the frame in its clip and count
    of the clip's frames (int32), and the frame rate as an exact fraction (two int64).
    """

    VERSION = tfds.core.Version("1.0.0")
    # Nothing is downloaded, and to look up checksums tfds 4.9.10 needs a package it does not install.
    code_path = None
    url_infos = None

    def __init__(self, *, size: int, encoding: str, splits: dict[str, Iterator[FrameRecord]], **kwargs: Any) -> None:
        self._size, self._encoding, self._records = size, encoding, splits
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (self._size, self._size, 3)
        frame = tfds.features.Image(shape=shape, encoding_format=self._encoding)
        return tfds.core.DatasetInfo(
            builder=self,
            description="Frames of video clips, one frame a record, clip after clip.",
            features=tfds.features.FeaturesDict(
                {
                    "frame": frame,
                    "clip": tfds.features.Text(),
                    "identity": tfds.features.Text(),
                    "index": np.int32,
                    "count": np.int32,
                    "fps_numerator": np.int64,
                    "fps_denominator": np.int64,
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(records) for split, records in self._records.items()}

    def _generate_examples(self, records: Iterator[FrameRecord]) -> Iterator[tuple[int, dict[str, Any]]]:
        return ((number, asdict(record)) for number, record in enumerate(records))

    def _generate_splits(self, dl_manager: object, download_config: object) -> list[Any]:
        # tfds's own way sorts the records first, which needs TensorFlow once a split is larger than 1 GB.
        info = self._info()  # unlike self.info it knows the folder that is filled just now
        writer = tfds.core.SequentialWriter(info, _FRAMES_PER_SHARD, file_format="array_record")
        examples = self._split_generators(dl_manager)
        writer.initialize_splits(list(examples))
        for split, numbered in examples.items():
            while few := [example for _, example in itertools.islice(numbered, 16)]:  # notes on disk each time
                writer.add_examples({split: few})
        writer.close_all()
        return list(info.splits.values())


def write_frames(folder: Path, *, size: int, encoding: str, splits: dict[str, Iterator[FrameRecord]]) -> Path:
    """Writes every split under `folder` and returns the folder inside it that holds the finished data set."""
    builder = Frames(data_dir=str(folder), size=size, encoding=encoding, splits=splits)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    tfds.disable_progress_bar()  # the caller knows how many clips there are and shows a better one
    with contextlib.redirect_stdout(io.StringIO()):  # tfds talks about downloading
        builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


def encoder(encoding: str, quality: int) -> Callable[[np.ndarray], bytes]:
    """A function from an (S, S, 3) uint8 frame to bytes: lossless png, or jpeg with full-size colour (4:4:4).

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
