"""Which shards do the reader's tests read? Five clips of 8 x 8, whose colours say the clip and the frame."""

from __future__ import annotations

import contextlib
import itertools
import json
from pathlib import Path

import numpy as np
from PIL import Image

from input_pipeline.pairs import Batch, PairStream
from input_pipeline.prepare import prepare
from input_pipeline.shards import Split, open_split

CLIPS = {"a#1": 40, "a#2": 3, "a#3": 5, "b#1": 2, "c#1": 9}  # name: frames
FRAMES = sum(CLIPS.values())
SIDE = 8


def write_shards(folder: Path) -> Path:
    """Frame i of clip n is of the one colour (n, i, 0); lossless."""
    for number, (name, count) in enumerate(CLIPS.items()):
        clip = folder / "root/train" / name
        clip.mkdir(parents=True)
        for index in range(count):
            Image.fromarray(np.full((SIDE, SIDE, 3), (number, index, 0), np.uint8)).save(clip / f"{index}.png")
    prepare(folder / "root", folder / "shards", size=SIDE, encoding="png", progress=False)
    return folder / "shards"


def stream(split: Split, **options) -> PairStream:
    """4 steps an epoch, unless the options say otherwise."""
    return PairStream(split, **{"batch_size": 4, "seed": 0, "sampling": "identity", "repeats": 6, **options})


def take(pairs: PairStream, count: int, start: int = 0) -> list[Batch]:
    """`count` batches from step `start`."""
    with contextlib.closing(pairs.batches(start)) as batches:
        return list(itertools.islice(batches, count))


def shard_of(shards: Path, clip: int) -> Path:
    """The shard that holds a clip's frames; it holds other clips too, or not."""
    split = open_split(shards, "train")
    split.frame(clip, 0)
    return split._file(split.clips[clip].first)


def rewrite(shards: Path, changed) -> None:
    """Writes the shards anew, record i as `changed(i, feature)` leaves it, and their sizes into the index: whole, but with wrong contents."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    index = json.loads((shards / "clips.json").read_text())
    number = itertools.count()
    for name in sorted(index["shards"]):
        shard = shards / name
        reader = ArrayRecordReader(str(shard))
        records = reader.read_all()
        reader.close()
        writer = ArrayRecordWriter(str(shard), "group_size:1")
        for record in records:
            example = tf_example_pb2.Example.FromString(record)
            changed(next(number), example.features.feature)
            writer.write(example.SerializeToString())
        writer.close()
        index["shards"][name] = shard.stat().st_size
    (shards / "clips.json").write_text(json.dumps(index))
