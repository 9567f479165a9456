"""Do reading and writing preserve rate, sound, pixels, transparency and existing files?"""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import clip, save, save_raw
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.video.reader import first_frame, open_frames
from maskanim_jax.video.writer import VideoWriter


def packets(path):
    with av.open(str(path)) as container:
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(audio=0) if p.size]


def leftovers(folder):
    return [p.name for p in folder.iterdir() if ".part" in p.name or ".old" in p.name]


@pytest.mark.parametrize("fps", ["30000/1001", "24000/1001", "25", "2397/80", "15/2", "60"])
def test_the_frame_rate_is_kept_as_the_exact_fraction(tmp_path, fps):
    path = save(tmp_path / "a.mp4", clip(37), Fraction(fps))
    with open_frames(path) as source:
        assert source.fps == Fraction(fps)
        assert source.count == 37
        assert len(list(source)) == 37


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.mov", "libx264")])
def test_other_containers_are_read_with_their_rate(tmp_path, name, codec):
    path = save_raw(tmp_path / name, codec, clip(20), rate=Fraction(30000, 1001))
    source = open_frames(path)
    assert source.fps == Fraction(30000, 1001)
    assert len(list(source)) == 20


def test_h264_keeps_colours_and_odd_sizes(tmp_path):
    frames = clip(5, 33, 47)
    read = list(open_frames(save(tmp_path / "odd.mp4", frames)))
    assert read[0].shape == (34, 48, 3)
    assert np.abs(read[2][:33, :47].astype(int) - frames[2]).mean() < 4  # colour has half the resolution
    flat = np.full((32, 32, 3), (200, 30, 90), np.uint8)
    shown = first_frame(save(tmp_path / "flat.mp4", [flat]))
    assert np.abs(shown[16, 16].astype(int) - flat[0, 0]).max() <= 3


def test_a_gif_keeps_count_colours_and_average_rate(tmp_path):
    frames = clip(12)
    source = open_frames(save(tmp_path / "a.gif", frames, Fraction(10)))
    read = list(source)
    assert (source.fps, len(read)) == (10, 12)
    assert np.abs(read[7].astype(int) - frames[7]).mean() < 6


def test_a_folder_is_lossless_and_in_natural_order(tmp_path):
    frames = clip(3)
    save(f"{tmp_path}/out/", frames)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "000000.png",
        "000001.png",
        "000002.png",
        "clip.json",
    ]
    assert all(np.array_equal(a, b) for a, b in zip(open_frames(tmp_path / "out"), frames, strict=True))
    (tmp_path / "natural").mkdir()
    for number in (1, 2, 10):
        Image.new("L", (4, 4), number).save(tmp_path / "natural" / f"f{number}.png")
    (tmp_path / "natural" / "notes.txt").write_text("no frame")
    source = open_frames(tmp_path / "natural")
    assert [int(frame[0, 0, 0]) for frame in source] == [1, 2, 10]
    assert (source.fps, source.count) == (25, 3)


def test_a_folder_has_the_frame_rate_of_its_note(tmp_path):
    save(f"{tmp_path}/out/", clip(1))
    note = tmp_path / "out" / "clip.json"
    note.write_text(json.dumps({"fps": "30000/1001"}))
    assert open_frames(tmp_path / "out").fps == Fraction(30000, 1001)
    for wrong in ("{", "[]", '{"fps": 0}', '{"fps": "1/0"}', '{"rate": 25}'):
        note.write_text(wrong)
        with pytest.raises(UserError, match=r"clip\.json .*frame rate"):
            open_frames(tmp_path / "out")


@pytest.mark.parametrize(
    ("delays", "seconds"), [([80] * 4, 0.32), ([50, 100, 300, 20], 0.47), ([10, 40, 40, 0], 0.28), ([0] * 4, 0.4)]
)
def test_the_rate_of_a_gif_is_the_mean_over_its_delays_as_browsers_play_them(tmp_path, delays, seconds):
    first, *others = [Image.new("L", (8, 8), 40 * i) for i in range(4)]
    first.save(tmp_path / "a.gif", save_all=True, append_images=others, duration=delays)
    source = open_frames(tmp_path / "a.gif")
    assert (source.fps, source.count) == (4 / Fraction(str(seconds)), 4)


def clear_but_for_a_square(left):
    picture = np.zeros((64, 64, 4), np.uint8)
    picture[16:48, left : left + 32] = (200, 30, 40, 255)
    return picture


@pytest.mark.parametrize(("name", "codec"), [("a.gif", None), ("a.webm", "libvpx"), ("b.webm", "libvpx-vp9")])
def test_what_is_transparent_becomes_white(tmp_path, name, codec):
    frames = [clear_but_for_a_square(left) for left in (0, 8, 16)]
    if codec:
        save_raw(tmp_path / name, codec, frames)
    else:
        first, *others = map(Image.fromarray, frames)
        first.save(tmp_path / name, save_all=True, append_images=others, disposal=2)
    read = list(open_frames(tmp_path / name))
    assert len(read) == 3
    assert (read[2][:8] >= 250).all()
    assert (read[2][20:44, :4] >= 250).all()  # where the square was in the first frame
    assert np.abs(read[2][32, 32].astype(int) - (200, 30, 40)).max() <= 8


@pytest.mark.parametrize("codec", ["aac", "libmp3lame"])
def test_sound_is_copied_packet_by_packet(tmp_path, codec):
    driving = save_raw(tmp_path / "tone.mp4", "libx264", clip(50), sound=codec)
    result = save(tmp_path / "out.mp4", clip(50, seed=1), Fraction(25), driving)
    assert len(packets(driving)) > 50
    assert packets(result) == packets(driving)


def test_sound_that_mp4_cannot_hold_is_encoded_again(tmp_path):
    driving = save_raw(tmp_path / "tone.avi", "mpeg4", clip(50), sound="pcm_u8")
    result = save(tmp_path / "out.mp4", clip(50, seed=1), Fraction(25), driving)
    with av.open(str(result)) as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "aac"
        assert abs(float(audio.duration * audio.time_base) - 2) < 0.1


def test_a_turned_video_comes_out_upright(tmp_path):
    frames = [np.zeros((48, 64, 3), np.uint8)]
    frames[0][:, :16] = 255  # the left edge
    path = save_raw(tmp_path / "turned.mp4", "libx264", frames, rotation=-90)  # to be shown turned clockwise
    shown = first_frame(path)
    assert shown.shape == (64, 48, 3)
    assert shown[:12].mean() > 230  # left has become top
    assert shown[20:].mean() < 20


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    path = save_raw(tmp_path / "wide.mp4", "libx264", clip(2), aspect=Fraction(3, 2))
    assert first_frame(path).shape == (48, 96, 3)


def test_iterating_again_starts_again(tmp_path):
    with open_frames(save(tmp_path / "a.mp4", clip(9))) as source:
        first = next(iter(source))
        assert np.array_equal(first, next(iter(source)))
        assert len(list(source)) == 9


def broken():
    yield clip(1)[0]
    raise RuntimeError


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out/"])
def test_a_failure_leaves_the_old_output_as_it_was(tmp_path, name):
    save(f"{tmp_path}/{name}", clip(4))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(RuntimeError):
        save(f"{tmp_path}/{name}", broken())
    with pytest.raises(UserError, match="there was no frame"):
        save(f"{tmp_path}/{name}", [])
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
    assert not leftovers(tmp_path)
    save(f"{tmp_path}/{name}", clip(2, seed=3))
    assert len(list(open_frames(tmp_path / name))) == 2
    assert not leftovers(tmp_path)


def test_an_unwritable_output_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for path in ("file/out.mp4", "file/", "out.xyz", "out", "mine/"):
        with pytest.raises(UserError, match=";"):
            VideoWriter(f"{tmp_path}/{path}", Fraction(25))
    assert (tmp_path / "mine" / "thesis.txt").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "mine"]


def test_names_with_colons_and_percents_work(tmp_path):
    path = save(tmp_path / "at 12:30 100%d#a.mp4", clip(3))
    assert len(list(open_frames(path))) == 3
