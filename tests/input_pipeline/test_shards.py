"""What does it cost to open shards, and is a frame read back as it was stored?"""

from __future__ import annotations

import io
import json
import os
import pickle
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from few_frames import CLIPS, rewrite, take, write_shards
from PIL import Image

from input_pipeline import record
from input_pipeline.pairs import PairStream
from input_pipeline.record import decode, parse
from input_pipeline.shards import Split, open_split

MANY = 20_000


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


def picture(format: str, side: int = 16, **options) -> tuple[np.ndarray, bytes]:
    """A smooth coloured picture as Pillow reads it back, and its bytes."""
    y, x = np.mgrid[:side, :side] * 255 // side
    buffer = io.BytesIO()
    Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)).save(buffer, format, **options)
    with Image.open(buffer) as image:
        return np.array(image.convert("RGB")), buffer.getvalue()


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize(
    ("format", "options"),
    [("PNG", {}), ("JPEG", {"quality": 95, "subsampling": 0}), ("JPEG", {"quality": 60}), ("WEBP", {"lossless": True})],
)
def test_a_picture_decodes_to_the_same_pixels_with_and_without_simplejpeg(
    monkeypatch, with_simplejpeg, format, options
):
    if with_simplejpeg:
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(record, "simplejpeg", None)
    expected, stored = picture(format, **options)
    out = np.zeros((2, 16, 16, 3), np.uint8)
    decode(stored, out[1])
    np.testing.assert_array_equal(out[1], expected)
    assert not out[0].any()


@pytest.mark.parametrize("with_simplejpeg", [True, False])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_a_picture_that_is_not_whole_or_of_another_size_is_refused(monkeypatch, with_simplejpeg, format):
    if with_simplejpeg:
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(record, "simplejpeg", None)
    _, stored = picture(format)
    for wrong in (stored[: len(stored) // 2], stored[:3], b"", picture(format, 8)[1], picture(format, 32)[1]):
        with pytest.raises(ValueError):
            decode(wrong, np.zeros((16, 16, 3), np.uint8))


@pytest.mark.parametrize("record", [b"", b"\xff\xd8\xff", bytes(40)])
def test_bytes_that_are_no_record_are_refused(record):
    with pytest.raises(ValueError):
        parse(record)


def test_frames_come_back_as_they_were_stored_and_into_the_place_that_is_given(shards):
    split = open_split(shards, "train")
    place = np.zeros((8, 8, 3), np.uint8)
    assert split.frame(3, 1, out=place) is place
    assert (place == (3, 1, 0)).all()
    assert [frame[0, 0, 1] for frame in split.frames(4)] == list(range(CLIPS["c#1"]))
    with pytest.raises(IndexError, match="clip b#1 has 2 frames"):
        split.frame(3, 2)


def test_a_split_that_was_read_can_be_pickled(shards):
    split = open_split(shards, "train")
    split.frame(0, 0)
    assert (pickle.loads(pickle.dumps(split)).frame(2, 4) == (2, 4, 0)).all()


def test_more_fields_in_a_record_do_no_harm(shards, tmp_path):
    import shutil

    copy = Path(shutil.copytree(shards, tmp_path / "copy"))

    def changed(number, feature):
        feature["note"].bytes_list.value.append(b"later versions may say more")

    rewrite(copy, changed)
    assert (open_split(copy, "train").frame(1, 2) == (1, 2, 0)).all()


def index_of(clips: int) -> dict:
    entries = [
        {"name": f"id{n // 4:05}#{n}", "identity": f"id{n // 4:05}", "first": 30 * n, "count": 30, "fps": "25/1"}
        for n in range(clips)
    ]
    return {"size": 256, "splits": {"train": {"clips": entries}}, "shards": {}}


@pytest.mark.parametrize("sampling", ["identity", "clip"])
def test_twenty_thousand_clips_are_opened_without_reading_one_and_in_little_memory(tmp_path, sampling):
    index = json.loads(json.dumps(index_of(MANY)))  # keys and values as a file gives them
    tracemalloc.start()
    split = Split(tmp_path, "train", index, "")
    pairs = PairStream(split, batch_size=16, seed=0, sampling=sampling, repeats=75)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1000 * MANY, f"{peak / MANY:.0f} bytes a clip"
    assert split._source is None  # nothing is open yet
    assert split.clips[-1].fps == Fraction(25)
    assert pairs.pairs_per_epoch == (MANY if sampling == "clip" else MANY // 4 * 75)


def test_a_pair_opens_and_reads_no_more_files_however_many_clips_there_are(shards, monkeypatch):
    asked = []
    original = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: asked.append(str(path)) or original(path, **options))
    split = open_split(shards, "train")
    split.frame(0, 0)
    asked.clear()
    pairs = PairStream(split, batch_size=4, seed=0, repeats=6, threads=0)
    take(pairs, 3)
    assert len([path for path in asked if "array_record" in path]) <= 2 * 4 * (3 + 1)  # Grain has begun the next batch
