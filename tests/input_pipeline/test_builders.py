"""Can a user of tensorflow-datasets prepare and read the sets without knowing this project?"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from input_pipeline.preparation.catalog import SETS
from input_pipeline.prepare import prepare
from input_pipeline.shards import open_split

tfds = pytest.importorskip("tensorflow_datasets")

import input_pipeline.builders  # noqa: E402, F401  (registers the sets)

SIZE = 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for split, count in (("train", 3), ("test", 1)):
        for clip in range(count):
            folder = tmp_path / "root" / split / f"id#{clip}"
            folder.mkdir(parents=True)
            for index in range(2 + clip):
                Image.new("RGB", (20, 20), (50 * clip, 20 * index, 9)).save(folder / f"{index}.png")
            (folder / "clip.json").write_text('{"fps": "30000/1001"}')
    return tmp_path / "root"


def test_the_sets_of_the_paper_and_anyones_own_clips_have_builders(tmp_path):
    assert list(SETS) == ["taichi_hd", "voxceleb_256", "bair_256", "mgif", "video_folder"]
    for name in SETS:
        builder = tfds.builder(name, data_dir=str(tmp_path), size=64)
        assert builder.info.features["frame"].shape == (64, 64, 3)
        assert builder.MANUAL_DOWNLOAD_INSTRUCTIONS


def test_a_builder_prepares_what_the_command_prepares(root, tmp_path):
    builder = tfds.builder("mgif", data_dir=str(tmp_path / "tfds"), size=SIZE, encoding="png")
    config = tfds.download.DownloadConfig(manual_dir=root)
    builder.download_and_prepare(download_config=config)
    prepare(root, tmp_path / "shards", size=SIZE, encoding="png", name="mgif", progress=False)
    ours, theirs = tmp_path / "shards", Path(builder.data_dir)
    names = sorted(path.name for path in ours.iterdir())
    assert sorted(path.name for path in theirs.iterdir()) == names
    for name in names:
        if name != "dataset_info.json":  # tfds adds its download figures
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
    assert len(builder.as_data_source("train")) == 9
    assert open_split(theirs, "train").frame(2, 3)[0, 0].tolist() == [100, 60, 9]
    assert [path.name for path in (tmp_path / "tfds").iterdir() if path.name.startswith(".")] == []


@pytest.mark.subprocess
def test_a_stranger_reads_what_is_stored_of_each_clip(root, tmp_path):
    prepare(root, tmp_path / "shards", size=SIZE, encoding="png", name="bair_256", progress=False)
    program = (
        "import sys, json, tensorflow_datasets as tfds\n"
        "builder = tfds.builder_from_directory(sys.argv[1])\n"
        "records = [builder.as_data_source('train')[n] for n in (0, 8)]\n"
        "say = lambda v: v.decode() if isinstance(v, bytes) else v.tolist() if getattr(v, 'ndim', 0) else int(v)\n"
        "said = [{k: say(v) if k != 'frame' else v[0, 0].tolist() for k, v in r.items()} for r in records]\n"
        "print(json.dumps([said, builder.name, [m for m in ('input_pipeline', 'maskanim_jax', 'tensorflow') if m in sys.modules]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "shards"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (first, last), name, modules = json.loads(done.stdout)
    same = {"identity": "id", "split": "train", "size": SIZE, "fps_numerator": 30000, "fps_denominator": 1001}
    assert first == same | {"clip": "id#0", "index": 0, "count": 2, "frame": [0, 0, 9]}
    assert last == same | {"clip": "id#2", "index": 3, "count": 4, "frame": [100, 60, 9]}
    assert name == "bair_256"
    assert modules == []
