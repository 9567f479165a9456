"""How does `prepare` handle users' clips?"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from input_pipeline.preparation.clips import find_clips, raw_clip
from input_pipeline.preparation.decode import stream_frames
from input_pipeline.prepare import prepare
from input_pipeline.shards import open_split
from maskanim_jax.errors import UserError

REPOSITORY = Path(__file__).parents[2]
SIDE = 32


def picture(index: int, height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """A flat frame whose colour tells its index."""
    return np.full((height, width, 3), (40, 20 * index, 200), np.uint8)


def write_folder(path: Path, count: int, fps: str = "12/1") -> Path:
    path.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(picture(index)).save(path / f"{index}.png")
    (path / "clip.json").write_text(json.dumps({"fps": fps}))
    return path


def write_video(path: Path, frames: list[np.ndarray], codec: str = "libx264", rate: str = "12/1", **options) -> Path:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(rate))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def noise(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(count)]


def truncate(path: Path, share: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def decode(path: Path) -> tuple[Fraction, list[np.ndarray]]:
    timing, frames = stream_frames(raw_clip(path))
    return timing.rate, list(frames)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two train clips and one test clip, as folders of frames."""
    write_folder(tmp_path / "root/train/a#1", 12)
    write_folder(tmp_path / "root/train/b#1", 3, fps="30000/1001")
    write_folder(tmp_path / "root/test/c#1", 2)
    return tmp_path / "root"


def quiet(root: Path, output: Path, **options) -> dict:
    return prepare(root, output, **{"size": SIDE, "encoding": "png", "progress": False, **options})


def test_lossless_shards_hold_every_frame_in_order_and_the_exact_frame_rate(root, tmp_path):
    report = quiet(root, tmp_path / "shards")
    split = open_split(tmp_path / "shards", "train")
    counted = report["splits"]["train"]
    assert (counted["clips"], counted["identities"], counted["frames"]) == (2, 2, 15)
    assert [(c.name, c.identity, c.first, c.count) for c in split.clips] == [
        ("a#1", "a", 0, 12),
        ("b#1", "b", 12, 3),
    ]
    assert split.clips[1].fps == Fraction(30000, 1001)
    for number, clip in enumerate(split.clips):
        for index, frame in enumerate(split.frames(number)):
            # Natural order: 10.png comes after 2.png.
            np.testing.assert_array_equal(frame, picture(index))
        assert index == clip.count - 1
    with pytest.raises(IndexError, match="no frame 3"):
        split.frame(1, 3)


def test_jpeg_shards_are_close_and_smaller_at_lower_quality(tmp_path):
    write_folder(tmp_path / "root/train/a", 2)
    Image.fromarray(noise(1)[0]).save(tmp_path / "root/train/a/2.png")
    for quality in (95, 20):
        quiet(tmp_path / "root", tmp_path / str(quality), size=64, encoding="jpeg", quality=quality)
    split = open_split(tmp_path / "95", "train")
    assert np.abs(split.frame(0, 1).astype(int) - picture(1, 64, 64)).max() <= 3
    worse = open_split(tmp_path / "20", "train")
    assert np.abs(worse.frame(0, 2).astype(int) - split.frame(0, 2)).mean() > 5


@pytest.mark.subprocess
def test_a_stranger_reads_the_shards_with_tfds_alone(root, tmp_path):
    quiet(root, tmp_path / "shards")
    program = (
        "import sys, tensorflow_datasets as tfds\n"
        "source = tfds.builder_from_directory(sys.argv[1]).as_data_source('train')\n"
        "r = source[13]\n"
        "print(len(source), r['frame'].shape, r['frame'][0, 0].tolist(), r['clip'], r['identity'],"
        " r['index'], r['count'], r['fps_numerator'], r['fps_denominator'],"
        " 'input_pipeline' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "shards"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    expected = "15 (32, 32, 3) [40, 20, 200] b'b#1' b'b' 1 3 30000 1001 False"
    assert done.stdout.strip() == expected


def test_a_set_of_few_shards_holds_the_same_frames_as_one_of_many(root, tmp_path, monkeypatch):
    quiet(root, tmp_path / "many")
    monkeypatch.setattr("input_pipeline.preparation.shard_jobs.MAX_SHARDS", 1)
    quiet(root, tmp_path / "few")
    for shards, count in (("many", 2), ("few", 1)):
        assert len(list((tmp_path / shards).glob("*train.array_record*"))) == count
        split = open_split(tmp_path / shards, "train")
        for number in range(2):
            for index, frame in enumerate(split.frames(number)):
                np.testing.assert_array_equal(frame, picture(index))


def test_a_pickled_split_reads_the_same_frames(root, tmp_path):
    quiet(root, tmp_path / "shards")
    split = open_split(tmp_path / "shards", "train")
    before = split.frame(0, 7)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(split)).frame(0, 7), before)


def test_the_fingerprint_follows_the_content_and_not_the_place(root, tmp_path):
    quiet(root, tmp_path / "one")
    quiet(root, tmp_path / "two")
    Image.fromarray(picture(5)).save(root / "train/a#1/0.png")  # one changed pixel colour, the same names and counts
    quiet(root, tmp_path / "three")
    one, two, three = (open_split(tmp_path / name, "train").fingerprint for name in ("one", "two", "three"))
    assert one == two != three


def test_every_kind_of_entry_is_read_with_its_frame_rate(tmp_path):
    frames = [picture(i) for i in range(5)]
    images = [Image.fromarray(frame) for frame in frames]
    for name, codec in (("v.mp4", "libx264"), ("v.mov", "libx264"), ("v.avi", "mpeg4"), ("v.webm", "libvpx")):
        write_video(tmp_path / name, frames, codec, rate="30000/1001" if name != "v.webm" else "25/1")
    images[0].save(tmp_path / "v.gif", save_all=True, append_images=images[1:], duration=80)
    Image.fromarray(np.concatenate(frames, axis=1)).save(tmp_path / "v.png")
    rates = {"v.webm": 25, "v.gif": Fraction(25, 2), "v.png": 25}
    for path in sorted(tmp_path.iterdir()):
        fps, decoded = decode(path)
        assert fps == rates.get(path.name, Fraction(30000, 1001)), path.name
        assert len(decoded) == 5, path.name
        for frame, expected in zip(decoded, frames, strict=True):
            assert frame.shape == (SIDE, SIDE, 3)
            assert frame.dtype == np.uint8
            # Limited-range YUV 4:2:0 of flat colours is exact to a few 255ths.
            assert np.abs(frame.astype(int) - expected).max() <= 6, path.name


def test_folders_may_keep_the_name_of_their_video_and_same_stems_stay_apart(tmp_path):
    write_folder(tmp_path / "train/ID#x.mp4", 2)
    (tmp_path / "train/twice.gif").touch()
    (tmp_path / "train/twice.mp4").touch()
    (tmp_path / "train/.DS_Store").touch()
    clips = find_clips(tmp_path)["train"]
    assert [(clip.name, clip.identity, clip.kind) for clip in clips] == [
        ("ID#x", "ID", "folder"),
        ("twice.gif", "twice.gif", "gif"),
        ("twice.mp4", "twice.mp4", "video"),
    ]


def test_bad_clips_are_left_out_and_listed_and_the_rest_is_prepared(root, tmp_path):
    train = root / "train"
    truncate(write_video(train / "truncated.mp4", noise(12)), 0.6)
    (train / "text.mp4").write_text("this is no video\n" * 100)
    write_folder(train / "short#1", 1)
    (train / "gone.mp4").symlink_to(root / "nowhere.mp4")
    (train / "notes.txt").write_text("notes")
    (train / "empty").mkdir()
    Image.fromarray(picture(0, 32, 80)).save(train / "odd.png")
    report = quiet(root, tmp_path / "shards")
    reasons = {skip["clip"]: skip["reason"] for skip in report["skipped"]}
    says = {
        "truncated.mp4": "truncated",
        "text.mp4": "is not a video",
        "short#1": "1 frame",
        "gone.mp4": "broken link",
        "notes.txt": "supported kind",
        "empty": "holds no frames",
        "odd.png": "not a row of square frames",
    }
    assert reasons.keys() == says.keys()
    for name, reason in reasons.items():
        assert says[name] in reason
        assert str(train / name) in reason
    assert json.loads((tmp_path / "shards/report.json").read_text()) == report
    assert [clip.name for clip in open_split(tmp_path / "shards", "train").clips] == ["a#1", "b#1"]


def test_strict_stops_at_the_first_bad_clip_and_goes_on_once_it_is_mended(root, tmp_path, capsys):
    (root / "train/text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match=r"text\.mp4 is not a video"):
        quiet(root, tmp_path / "shards", strict=True)
    assert not (tmp_path / "shards").exists()
    assert str(tmp_path / ".shards.partial") in capsys.readouterr().err
    (root / "train/text.mp4").unlink()
    assert quiet(root, tmp_path / "shards", strict=True)["skipped"] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "shards"]


@pytest.mark.subprocess
def test_with_nothing_readable_the_command_exits_2_with_one_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "root/train").mkdir(parents=True)
    (tmp_path / "root/train/text.mp4").write_text("this is no video")
    options = [f"--input={tmp_path / 'root'}", f"--output={tmp_path / 'shards'}", "--size=32"]
    command = [sys.executable, "-m", "input_pipeline.prepare", *options]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 2
    sentence = done.stderr.strip().splitlines()[-1]
    assert sentence.startswith("error: no clip under")
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root"]


def test_roots_without_clips_are_refused(tmp_path):
    with pytest.raises(UserError, match="neither train/ nor test/"):
        find_clips(tmp_path)
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="is empty"):
        find_clips(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        find_clips(tmp_path / "missing")


def test_shards_are_replaced_only_when_told_and_only_by_complete_ones(root, tmp_path):
    shards = tmp_path / "shards"
    quiet(root, shards)
    before = open_split(shards, "train").fingerprint
    with pytest.raises(UserError, match="--overwrite"):
        quiet(root, shards)
    (root / "train/text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match="is not a video"):
        quiet(root, shards, overwrite=True, strict=True)
    assert open_split(shards, "train").fingerprint == before
    quiet(root, shards, overwrite=True, size=16)
    assert open_split(shards, "train").frame(0, 0).shape == (16, 16, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root", "shards"]


def test_a_folder_that_is_no_shards_folder_is_never_replaced(root, tmp_path):
    with pytest.raises(UserError, match="not a shards folder"):
        quiet(root, root, overwrite=True)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is not a folder"):
        quiet(root, tmp_path / "file/shards")
    assert (tmp_path / "file").read_text() == "mine"


def test_missing_parents_of_the_output_are_made_when_there_is_something_to_write(root, tmp_path):
    output = tmp_path / "deep/er/shards"
    (root / "train/text.mp4").write_text("this is no video")
    with pytest.raises(UserError, match="is not a video"):
        quiet(root, output, strict=True)
    assert not (tmp_path / "deep").exists()
    quiet(root, output)
    assert open_split(output, "train").frame(1, 2)[0, 0, 1] == 40
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "root"]
    assert [path.name for path in output.parent.iterdir()] == ["shards"]


@pytest.mark.parametrize(
    "options", [{"size": 0}, {"quality": 0}, {"encoding": "bmp"}, {"min_frames": 0}, {"workers": 0}, {"name": "x"}]
)
def test_impossible_settings_are_refused(root, tmp_path, options):
    with pytest.raises(UserError, match=f"--{next(iter(options))}="):
        quiet(root, tmp_path / "shards", **options)


def test_a_shard_cut_short_is_refused_by_name(root, tmp_path):
    quiet(root, tmp_path / "shards")
    shard = truncate(next((tmp_path / "shards").glob("*train.array_record*")), 0.5)
    with pytest.raises(UserError, match="truncated") as caught:
        open_split(tmp_path / "shards", "train")
    assert str(shard) in str(caught.value)
    shard.unlink()
    with pytest.raises(UserError, match="is missing"):
        open_split(tmp_path / "shards", "train")


def test_a_shard_damaged_in_place_is_named_when_it_is_read(root, tmp_path):
    quiet(root, tmp_path / "shards")
    shard = min((tmp_path / "shards").glob("*train.array_record*"))
    shard.write_bytes(bytes(shard.stat().st_size))
    split = open_split(tmp_path / "shards", "train")  # only sizes are looked at here
    with pytest.raises(UserError, match=r"frame 4 of clip a#1") as caught:
        split.frame(0, 4)
    assert str(shard) in str(caught.value)


def test_what_is_not_a_shards_folder_is_refused(root, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        open_split(tmp_path / "missing", "train")
    with pytest.raises(UserError, match="not a shards folder"):
        open_split(root, "train")
    quiet(root, tmp_path / "shards")
    with pytest.raises(UserError, match="no validation split"):
        open_split(tmp_path / "shards", "validation")
    (tmp_path / "shards/clips.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        open_split(tmp_path / "shards", "train")
