"""Are the authors' tables of Tai-Chi-HD and VoxCeleb converted correctly: frames, boxes, names, splits, and missing clips?"""

import json
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import save
from untrained_run import untrained

from input_pipeline import prepare
from input_pipeline.preparation.download_videos import ADDRESSES, GONE, download
from input_pipeline.preparation.published_tables import clips_of, read_table
from input_pipeline.shards import open_split
from maskanim_jax.animation.pairs import ClipPair, read_clip_pairs
from maskanim_jax.errors import UserError

TAICHI = "video_id,start,end,bbox,fps,width,height,partition"
REAL = Path(__file__).parents[3] / "shared" / "data" / "metadata"


def table(path, *rows, header=TAICHI):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def numbered(count, width=64, height=48):
    """Frames whose number is their brightness, with a white quarter at the upper left."""
    frames = (
        np.repeat(np.arange(count, dtype=np.uint8)[:, None, None, None] * 4, height, 1).repeat(width, 2).repeat(3, 3)
    )
    frames[:, : height // 2, : width // 2] = 255
    return frames


def number_of(frame):
    return round(float(frame[-4:, -4:].mean()) / 4)


def prepared(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["prepare", *map(str, flags)])
    return prepare.main()


# -- the rule ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "frames"),
    [
        (Fraction(30000, 1001), (10, 20)),  # the table's 29.97
        (Fraction(60000, 1001), (20, 40)),
        (Fraction(25), (9, 17)),  # i x 29.97 >= 250 from i = 8.34 on, and < 500 until 16.68
        (Fraction(30), (11, 21)),  # 300 / 29.97 = 10.01
    ],
)
def test_frames_are_those_of_the_same_times(tmp_path, rate, frames):
    row = read_table(table(tmp_path / "taichi.csv", "abc,10,20,8-4-40-44,29.97,64,48,train")).rows[0]
    clip_range = row.clip_range(rate, 64, 48)
    assert (clip_range.start, clip_range.end) == frames
    assert all(10 * round(float(rate), 2) <= i * 29.97 + 1e-9 < 20 * round(float(rate), 2) for i in range(*frames))
    assert not 10 * round(float(rate), 2) <= (frames[0] - 1) * 29.97 + 1e-9


def test_the_box_is_scaled_to_the_video_and_truncated(tmp_path):
    row = read_table(table(tmp_path / "taichi.csv", "abc,10,20,9-5-41-45,25,64,48,train")).rows[0]
    assert row.clip_range(Fraction(25), 64, 48).box == (9, 5, 41, 45)
    assert row.clip_range(Fraction(25), 96, 120).box == (13, 12, 61, 112)


def test_names_and_identities_are_those_of_the_authors_tool(tmp_path):
    header = TAICHI + ",person_id"
    path = table(
        tmp_path / "v.csv", "vid,3,9,0-0-4-4,25,8,8,test,id1", "v#2,3,9,0-0-4-4,25,8,8,test,id1", header=header
    )
    found = read_table(path)
    assert [row.name for row in found.rows] == ["id1#vid#000003#000009", "id1#2#v#000003#000009"]
    assert [row.video for row in found.rows] == ["vid", "v"]
    assert found.of == "voxceleb_256"


@pytest.mark.parametrize(
    ("row", "match"),
    [
        ("abc,20,10,0-0-4-4,25,8,8,train", "line 2 of .* frames 20 to 10"),
        ("abc,1,10,0-0-4,25,8,8,train", "line 2 .*box '0-0-4'"),
        ("abc,1,10,4-0-4-4,25,8,8,train", "empty box"),
        ("abc,x,10,0-0-4-4,25,8,8,train", "not a number"),
        ("abc,1,10,0-0-4-4,0,8,8,train", "at 0 per second"),
        ("abc,1,10,0-0-4-4,25,8,8,dev", "partition 'dev'"),
        ("a/b,1,10,0-0-4-4,25,8,8,train", "names no video"),
    ],
)
def test_rows_that_cannot_be_meant_are_named(tmp_path, row, match):
    with pytest.raises(UserError, match=match):
        read_table(table(tmp_path / "t.csv", row))


@pytest.mark.skipif(not REAL.is_dir(), reason="the authors' tables (../shared/data/metadata) are not here")
def test_the_real_tables_are_read_whole():
    for name, counts, videos in (("taichi", (3049, 285), 280), ("vox", (19550, 525), 3442)):
        found = read_table(REAL / f"{name}-metadata.csv")
        assert tuple(sum(row.split == split for row in found.rows) for split in ("train", "test")) == counts
        assert len(found.videos()) == videos
    listed = {row.name for row in read_table(REAL / "taichi-metadata.csv").rows if row.split == "test"}
    pairs, absent = read_clip_pairs(REAL / "pairs-taichi256.csv", sorted(listed))
    assert (len(pairs), absent) == (50, 0)


# -- the command ---------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def videos(tmp_path):
    """A table of four videos, two of which are there, at other rates and sizes than it states."""
    save(tmp_path / "videos" / "abc.mp4", numbered(40))
    save(tmp_path / "videos" / "A title [defdefdefde].mp4", numbered(40, 128, 96), Fraction(50))
    path = table(
        tmp_path / "taichi-metadata.csv",
        "abc,10,20,0-0-32-24,25,64,48,train",
        "abc,30,60,0-0-64-48,25,64,48,train",  # ends with the video
        "defdefdefde,5,10,0-0-64-48,25,64,48,test",
        "gonegonegon,5,10,0-0-64-48,25,64,48,test",
        "lostlostlos,5,10,0-0-64-48,25,64,48,train",
    )
    return path, tmp_path / "videos"


def test_a_published_table_becomes_shards(videos, tmp_path, monkeypatch, capsys):
    path, folder = videos
    out = tmp_path / "shards"
    flags = [
        f"--metadata={path}",
        f"--videos={folder}",
        f"--output={out}",
        "--size=32",
        "--encoding=png",
        "--workers=1",
    ]
    assert prepared(monkeypatch, *flags) == 0
    train, test = open_split(out, "train"), open_split(out, "test")
    assert [clip.name for clip in train.clips] == ["abc#000010#000020", "abc#000030#000060"]
    assert [(clip.name, clip.identity) for clip in test.clips] == [("defdefdefde#000005#000010", "defdefdefde")]
    assert [clip.count for clip in (*train.clips, *test.clips)] == [10, 10, 10]
    assert np.asarray(train.frame(0, 0)).min() > 240  # the white quarter alone fills the square
    frames = [np.asarray(frame) for frame in test.frames(0)]
    assert [number_of(frame) for frame in frames] == list(range(10, 20))
    assert frames[0][:15, :15].min() > 200  # all of the box, not its centre square
    assert frames[0][:15, 18:].max() < 90
    about = json.loads((out / "report.json").read_text())["published"]
    assert about["missing_videos"] == ["gonegonegon", "lostlostlos"]
    assert about["missing"] == {"train": 1, "test": 1}
    assert about["papers"]["FOMM"]["train"] == {"clips": 3049, "here": 2}
    said = capsys.readouterr().out
    assert "2 videos of the table are missing, which removes 1 of 3 train clips, 1 of 2 test clips" in said
    assert "here there are 2 of 3,016 train and 1 of 125 test" in said


def test_flags_that_do_not_go_together_are_a_sentence(videos, tmp_path, monkeypatch):
    path, folder = videos
    for flags, match in (
        ([f"--metadata={path}"], "--videos=FOLDER"),
        ([f"--videos={folder}"], "--metadata"),
        ([], "--input is missing"),
        ([f"--metadata={path}", f"--videos={tmp_path / 'none'}"], "not a folder"),
        ([f"--metadata={folder / 'abc.mp4'}", f"--videos={folder}"], "cannot be read as a table"),
    ):
        with pytest.raises(UserError, match=match):
            prepared(monkeypatch, *flags, f"--output={tmp_path / 'out'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="none of the 4 videos"):
        clips_of(read_table(path), tmp_path / "empty")


# -- downloads -----------------------------------------------------------------------------------------------------------------------------

FAKE = """#!{python}
import pathlib, sys
address, output = sys.argv[-1], sys.argv[sys.argv.index("--output") + 1]
log = pathlib.Path({log!r})
log.write_text((log.read_text() if log.exists() else "") + address + "\\n")
if "gone" in address:
    sys.exit("ERROR: [youtube] Video unavailable")
if "lost" in address:
    sys.exit("ERROR: HTTP Error 429: Too Many Requests")
pathlib.Path(output).write_bytes(b"x")
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A yt-dlp on PATH that writes down what it is asked for."""
    (tmp_path / "bin").mkdir()
    log, tool = tmp_path / "log", tmp_path / "bin" / "yt-dlp"
    tool.write_text(FAKE.format(python=sys.executable, log=str(log)))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    return lambda: log.read_text().split("=")[1:] if log.exists() else []


def test_downloads_fetch_what_is_missing_and_never_ask_twice_for_what_is_gone(videos, tmp_path, fake):
    found = read_table(
        table(tmp_path / "t.csv", *videos[0].read_text().splitlines()[1:], "newnewnewne,5,9,0-0-4-4,25,8,8,test")
    )
    said = download(found, videos[1])
    assert len(fake()) == 3  # gone, lost and new; the others are there
    assert "1 of 3 videos were downloaded" in said[0]
    assert list(json.loads((videos[1] / GONE).read_text())) == ["gonegonegon"]
    download(found, videos[1])
    assert [each[:11] for each in fake()[3:]] == ["lostlostlos"]


def test_downloads_end_when_they_keep_failing(tmp_path, fake):
    rows = [f"lostlostl{number},5,9,0-0-4-4,25,8,8,test" for number in range(10, 20)]
    with pytest.raises(UserError, match=r"5 videos in a row .*429.*to resume"):
        download(read_table(table(tmp_path / "t.csv", *rows)), tmp_path / "videos")
    assert len(fake()) == 5


def test_without_the_tool_the_addresses_are_written(videos, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    said = download(read_table(videos[0]), videos[1])
    assert "pip install yt-dlp" in said[0]
    assert (videos[1] / ADDRESSES).read_text().splitlines() == [
        "https://www.youtube.com/watch?v=gonegonegon",
        "https://www.youtube.com/watch?v=lostlostlos",
    ]


# -- pairs ---------------------------------------------------------------------------------------------------------------------------------


def test_published_pairs_name_clips(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("distance,source,driving,frame\n1,a#1.mp4,b.mp4,0\n2,b.mp4,a#1.mp4,3\n3,b.mp4,gone.mp4,0\n")
    assert read_clip_pairs(path, ["a#1", "b"]) == ([ClipPair(0, 1), ClipPair(1, 0, 3)], 1)
    with pytest.raises(UserError, match="no pair"):
        read_clip_pairs(path, ["c"])


@pytest.mark.slow
def test_published_pairs_are_animated(tiny_shards, tmp_path):
    from tiny import tiny_config

    from maskanim_jax.evaluation.evaluate_run import animate_test

    config = tiny_config(tiny_shards)
    names = [clip.name for clip in open_split(tiny_shards, "test").clips]
    (tmp_path / "pairs.csv").write_text(
        f"distance,source,driving,frame\n0,{names[0]}.mp4,{names[1]}.mp4,2\n0,{names[1]},gone,0\n"
    )
    workdir = untrained(tmp_path / "run", config)
    config.animate.pairs_csv = str(tmp_path / "pairs.csv")
    made = animate_test(config, workdir)
    assert [path.name for path in made] == [
        f"{names[0]}-by-{names[1]}-from-2{end}" for end in (".mp4", ".gif", "-strip.mp4")
    ]
    config.animate.pairs_csv = str(tmp_path / "none.csv")
    with pytest.raises(UserError, match="cannot be read"):
        animate_test(config, workdir)
