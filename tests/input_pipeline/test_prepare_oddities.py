"""Are unusual clips handled, or refused by name? Rotation, transparency, grey, odd sizes, variable rates, names, boxes."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import save_raw
from PIL import Image

from input_pipeline.preparation.boxes import ClipRange, crop_square, read_boxes
from input_pipeline.preparation.clips import find_clips, raw_clip, with_boxes
from input_pipeline.preparation.decode import square_frames
from input_pipeline.prepare import main, prepare
from input_pipeline.shards import open_split
from maskanim_jax.errors import UserError

SIZE = 32
SHARED = Path(__file__).parents[3] / "shared/data"


def frames_of(path: Path) -> list[np.ndarray]:
    return list(square_frames(raw_clip(path), SIZE)[1])


def quarters(height: int = 64, width: int = 64) -> np.ndarray:
    """Red, green over blue, white."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2, 0] = 255
    frame[: height // 2, width // 2 :, 1] = 255
    frame[height // 2 :, : width // 2, 2] = 255
    frame[height // 2 :, width // 2 :] = 255
    return frame


def corners(frame: np.ndarray) -> list[str]:
    """The colours at the middle of the four quarters, row by row."""
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white"}
    quarter, three = frame.shape[0] // 4, 3 * frame.shape[0] // 4
    return [names[tuple(int(v > 127) for v in frame[y, x])] for y in (quarter, three) for x in (quarter, three)]


def test_a_turned_video_is_stored_upright(tmp_path):
    plain = frames_of(save_raw(tmp_path / "plain.mp4", "libx264", [quarters()] * 3))
    turned = frames_of(save_raw(tmp_path / "turned.mp4", "libx264", [quarters()] * 3, rotation=90))
    assert corners(plain[0]) == ["red", "green", "blue", "white"]
    assert corners(turned[0]) == corners(np.rot90(plain[0]))


def test_transparency_is_laid_over_white_and_grey_becomes_rgb(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0)).save(folder / "0.png")
    Image.new("L", (SIZE, SIZE), 77).save(folder / "1.png")
    Image.new("I;16", (SIZE, SIZE), 77 * 257).save(folder / "2.png")
    clear, grey, deep = frames_of(folder)
    assert (clear == 255).all()
    assert (grey == 77).all()
    assert (deep == 77).all()


@pytest.mark.parametrize(("height", "width"), [(33, 47), (47, 33), (31, 31), (7, 200)])
def test_odd_sizes_become_squares_of_the_middle(tmp_path, height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[height // 2, width // 2] = 255
    (tmp_path / "f").mkdir()
    Image.fromarray(frame).save(tmp_path / "f/0.png")
    (stored,) = frames_of(tmp_path / "f")
    assert stored.shape == (SIZE, SIZE, 3)
    y, x = np.unravel_index(stored[..., 0].argmax(), stored.shape[:2])
    assert abs(y - SIZE / 2) <= SIZE / min(height, width) + 1
    assert abs(x - SIZE / 2) <= SIZE / min(height, width) + 1


def test_a_video_of_uneven_rate_is_resampled_so_that_each_frame_keeps_its_time(tmp_path, capsys, monkeypatch):
    (tmp_path / "train").mkdir()
    path, times = tmp_path / "train" / "uneven.mp4", [0, 1, 2, 6, 7, 11]  # in tenths of a second
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"bf": "0"}  # else the container's durations are those of the decoding order
        stream.codec_context.time_base = Fraction(1, 10)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 40 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    fps, frames, resampled = square_frames(raw_clip(path), SIZE)
    seen = [round(int(frame.mean()) / 40) for frame in frames]
    assert (fps, resampled) == (10, True)
    right = [0, 1, 2, 2, 2, 2, 3, 4, 4, 4, 4, 5]  # the last for a tenth of a second
    assert seen == right
    monkeypatch.setattr(sys, "argv", ["prepare", f"--input={tmp_path}", f"--output={tmp_path}/set", f"--size={SIZE}"])
    main()
    assert "resampled 1 clips of variable frame rate" in capsys.readouterr().out
    (stored,) = open_split(tmp_path / "set", "train").clips
    assert (stored.fps, stored.count) == (10, 12)


def test_names_in_any_script_are_kept_and_what_is_no_utf8_is_refused(tmp_path):
    train = tmp_path / "root/train"
    for name in ("Żółć#a b", "太極拳#1", "emoji😀"):
        (train / name).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (SIZE, SIZE)).save(train / name / f"{index}.png")
    broken = os.fsencode(train) + b"/bad\xff.mp4"
    try:
        open(broken, "w").close()
    except OSError:
        broken = b""  # this file system takes no such names
    report = prepare(tmp_path / "root", tmp_path / "shards", size=SIZE, progress=False)
    clips = open_split(tmp_path / "shards", "train").clips
    assert {(clip.name, clip.identity) for clip in clips} == {
        ("Żółć#a b", "Żółć"),
        ("太極拳#1", "太極拳"),
        ("emoji😀", "emoji😀"),
    }
    if broken:
        (skip,) = report["skipped"]
        assert "not UTF-8" in skip["reason"]
        assert "bad\\udcff" in skip["reason"]


def table(path: Path, *rows: str, head: str = "clip,start,end,x0,y0,x1,y1") -> Path:
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return path


def numbered(folder: Path, count: int) -> None:
    """Frames whose left half tells the index in red and whose right half in green."""
    folder.mkdir(parents=True)
    for index in range(count):
        frame = np.zeros((SIZE, 2 * SIZE, 3), np.uint8)
        frame[:, :SIZE, 0] = frame[:, SIZE:, 1] = 20 * index
        Image.fromarray(frame).save(folder / f"{index}.png")


def test_boxes_cut_frames_and_ranges_into_clips_of_their_own(tmp_path):
    numbered(tmp_path / "root/train/anna", 6)
    numbered(tmp_path / "root/train/bert", 3)
    numbered(tmp_path / "root/train/carl", 3)
    boxes = table(
        tmp_path / "boxes.csv",
        f"anna,1,4,0,0,{SIZE},{SIZE}",
        f"anna,4,,{SIZE},0,{2 * SIZE},{SIZE}",
        "bert,,,,,,",
        "dora,0,9,0,0,9,9",
        "carl,0,9,,,,",
    )
    report = prepare(tmp_path / "root", tmp_path / "shards", size=SIZE, encoding="png", boxes=boxes, progress=False)
    split = open_split(tmp_path / "shards", "train")
    found = [(clip.name, clip.identity, clip.count) for clip in split.clips]
    assert found == [("anna#1-4", "anna", 3), ("anna#4-end", "anna", 2), ("bert", "bert", 3)]
    assert [tuple(frame[0, 0]) for frame in split.frames(0)] == [(20, 0, 0), (40, 0, 0), (60, 0, 0)]
    assert [tuple(frame[0, 0]) for frame in split.frames(1)] == [(0, 80, 0), (0, 100, 0)]
    reasons = {skip["clip"]: skip["reason"] for skip in report["skipped"]}
    assert "has 3 frames, but the table of boxes asks for frames 0 to 9" in reasons["carl"]
    assert "line 5" in reasons["dora"]
    assert "missing" in reasons["dora"]


def test_entries_without_a_row_are_listed_and_names_may_have_suffixes_or_other_accents(tmp_path):
    train = tmp_path / "train"
    train.mkdir()
    for name in ("a.mp4", "caf\u0065\u0301.mp4", "left.mp4"):
        (train / name).touch()
    rows = read_boxes(table(tmp_path / "b.csv", "a.mp4,0,2,,,,", "caf\u00e9,0,2,,,,", "a,0,2,1,1,2,2"))
    cut, left = with_boxes(find_clips(tmp_path), rows)
    assert [clip.name for clip in cut["train"]] == ["a#0-2", "a#0-2#2", "caf\u0065\u0301#0-2"]
    assert [skip["clip"] for skip in left] == ["left.mp4"]


def test_a_column_of_identities_is_obeyed(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a#1.mp4").touch()
    head = "clip,start,end,x0,y0,x1,y1,identity"
    rows = read_boxes(table(tmp_path / "b.csv", "a#1,0,2,,,,,Ann", "a#1,2,4,,,,,", head=head))
    cut, _ = with_boxes(find_clips(tmp_path), rows)
    assert [clip.identity for clip in cut["train"]] == ["Ann", "a"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,x,2,,,,", "not a number"),
        ("a,5,5,,,,", "empty range of frames"),
        ("a,-1,5,,,,", "empty range of frames"),
        (",0,5,,,,", "names no clip"),
        ("a,0,5,1,1,,", "incomplete box"),
        ("a,0,5,9,1,9,5", "empty box"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused_with_their_line(tmp_path, row, says):
    with pytest.raises(UserError, match=says) as caught:
        read_boxes(table(tmp_path / "b.csv", "a,0,5,,,,", row))
    assert "line 3 of" in str(caught.value)


def test_tables_that_are_none_are_refused(tmp_path):
    with pytest.raises(UserError, match="no column end, y1"):
        read_boxes(table(tmp_path / "b.csv", head="clip,start,x0,y0,x1"))
    with pytest.raises(UserError, match="no rows"):
        read_boxes(table(tmp_path / "b.csv"))
    with pytest.raises(UserError, match="cannot be read as a table"):
        read_boxes(tmp_path / "none.csv")


def test_boxes_are_cut_at_the_frame_and_refused_outside(tmp_path):
    frame = quarters()
    assert corners(crop_square(frame, (-10, -10, 64, 64), 64)) == ["red", "green", "blue", "white"]
    assert (crop_square(frame, (40, 40, 99, 99), 8) == 255).all()
    with pytest.raises(UserError, match="outside its frames of 64 x 64"):
        crop_square(frame, (64, 0, 99, 64), 8)
    (tmp_path / "f").mkdir()
    Image.fromarray(frame).save(tmp_path / "f/0.png")
    clip = raw_clip(tmp_path / "f")
    outside = type(clip)(clip.path, clip.name, clip.identity, clip.kind, ClipRange(box=(99, 99, 120, 120)))
    with pytest.raises(UserError, match="outside") as caught:
        list(square_frames(outside, SIZE)[1])
    assert str(clip.path) in str(caught.value)


@pytest.mark.skipif(not (SHARED / "mgif128/train").is_dir(), reason="the real clips in ../shared/data are not here")
def test_real_clips_of_every_set_are_read_to_their_last_frame(tmp_path):
    for name in ("bair/test", "mgif128/test", "vox/test"):
        split, clip = tmp_path / "root/train", min((SHARED / name).iterdir())
        split.mkdir(parents=True, exist_ok=True)
        (split / f"{name.split('/')[0]}-{clip.name}").symlink_to(clip)
    report = prepare(tmp_path / "root", tmp_path / "shards", size=SIZE, progress=False)
    assert report["skipped"] == []
    assert report["splits"]["train"]["clips"] == 3
