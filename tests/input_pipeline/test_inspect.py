"""How does `inspect` describe a folder of shards?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from input_pipeline.inspect import contact_sheet, describe, verify
from input_pipeline.prepare import prepare
from input_pipeline.shards import open_split
from maskanim_jax.errors import UserError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("test", 1)):
        for clip in range(count):
            folder = tmp_path / "root" / split / f"Ż{clip // 2}#{clip}"
            folder.mkdir(parents=True)
            for index in range(2 + clip):
                Image.new("RGB", (32, 32), (60 * clip, 20 * index, 200)).save(folder / f"{index}.png")
    prepare(tmp_path / "root", tmp_path / "shards", size=32, encoding="png", progress=False)
    return tmp_path / "shards"


def test_counts_sizes_and_rates_are_told(shards):
    whole, train, test = describe(shards)
    size = sum(path.stat().st_size for path in shards.glob("*array_record*")) / 1e6
    assert f"video_folder, frames of 32 x 32 pixels, png, lossless; 4 shards, {size:.1f} MB" in whole
    assert train == ("train: 3 clips of 2 identities, 9 frames; a clip has 2 to 4 (median 3); frames per second: 25")
    assert test.startswith("test: 1 clips of 1 identities, 2 frames")


def test_the_contact_sheet_shows_first_and_last_frames(shards):
    sheet = np.asarray(contact_sheet([open_split(shards, "train")], clips=3, frames=2))
    assert sheet.shape == (3 * (32 + 16), 2 * 32, 3)
    for row in range(3):
        middle = row * 48 + 16 + 16
        assert sheet[middle, 16].tolist() == [60 * row, 0, 200]
        assert sheet[middle, 48].tolist() == [60 * row, 20 * (row + 1), 200]


@pytest.mark.subprocess
def test_the_command_writes_the_sheet_beside_the_shards_and_nothing_into_them(shards):
    before = sorted(path.name for path in shards.iterdir())
    done = subprocess.run(
        [sys.executable, "-m", "input_pipeline.inspect", shards, "--verify"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "all 11 frames are as they were written" in done.stdout
    assert Image.open(shards.with_name("shards-contact.png")).format == "PNG"
    assert sorted(path.name for path in shards.iterdir()) == before


def test_verifying_names_the_shard_and_clip_that_are_damaged(shards):
    assert verify(shards) == 11
    shard = max(shards.glob("*train.array_record*"))
    data = bytearray(shard.read_bytes())
    place = data.index(b"IDAT") + 8  # inside the first stored picture
    data[place] ^= 0xFF
    shard.write_bytes(data)
    with pytest.raises(UserError, match="Ż1#2") as caught:
        verify(shards)
    assert str(shard) in str(caught.value)


@pytest.mark.subprocess
def test_what_is_no_shards_folder_is_a_sentence(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "input_pipeline.inspect", tmp_path], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "not a shards folder" in done.stderr
    assert "Traceback" not in done.stderr
