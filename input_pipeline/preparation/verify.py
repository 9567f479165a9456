"""Was a shard written correctly? Every record is read back, hashed and decoded."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

from maskanim_jax.errors import UserError


def verify_shard(path: Path, clips: list[dict[str, Any]], size: int, encoding: str) -> None:
    """Checks that a shard's records are the frames of `clips` (name, count, sha256 of
    encoded frames), in order.

    Raises UserError that names the shard and the clip.
    """
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordReader
    from PIL import Image

    from input_pipeline.preparation.shard_writer import features

    stored = features(size, encoding)
    parser = tfds.core.example_parser.ExampleParserNp(stored.get_serialized_info())
    record = 0
    clip: dict[str, Any] = {"name": "?"}
    try:
        reader = ArrayRecordReader(str(path), "readahead_buffer_size:0")
        try:
            for clip in clips:
                digest = hashlib.sha256()
                for index in range(clip["count"]):
                    example = parser.parse_example(reader.read([record])[0])
                    frame = example["frame"]
                    digest.update(frame)
                    with Image.open(io.BytesIO(frame)) as image:
                        image.load()
                        right = image.size == (size, size) and image.format == encoding.upper()
                    if not right or int(example["index"]) != index or example["clip"].decode() != clip["name"]:
                        raise ValueError(f"record {record} is another frame")
                    record += 1
                if digest.hexdigest() != clip["sha256"]:
                    raise ValueError("the bytes read differ from those written")
            if record != reader.num_records():
                raise ValueError(f"{reader.num_records()} records instead of {record}")
        finally:
            reader.close()
    except Exception as error:  # array_record raises many types; all of them mean damage
        raise UserError(
            f"{path} does not read back what was written, at clip {clip['name']} ({error}); check the disk and prepare again"
        ) from error
