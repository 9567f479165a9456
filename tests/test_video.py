"""Frames in and out: are rate, sound, pixels and older files kept, and is bad input refused in a sentence?"""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.video import VideoWriter, first_frame, open_frames, read_image, square

REAL = Path(__file__).parents[2] / "shared" / "data"


def clip(count, height=48, width=64, seed=0):
    """Smooth moving colours: H.264 keeps them nearly exact."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(x / 17 + i / 5 + seed) * np.cos(y / 13 + c) for i in range(count) for c in range(3)]
    return np.stack(waves).reshape(count, 3, height, width).transpose(0, 2, 3, 1).astype(np.uint8)


def save(path, frames, fps=Fraction(25), audio_from=None):
    with VideoWriter(path, fps, audio_from) as writer:
        for frame in frames:
            writer.write(frame)
    return Path(path)


def save_raw(path, codec, frames, rate=25, sound=None, rotation=0, options=None):
    """A video by PyAV alone, with a tone of 2 seconds if `sound` names a codec."""
    with av.open(str(path), "w", options=options or {}) as output:
        video = output.add_stream(codec, rate=rate)
        video.height, video.width = frames[0].shape[:2]
        video.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        if rotation:
            video.set_display_rotation(rotation)
        tone = output.add_stream(sound, rate=48000, layout="mono") if sound else None
        for frame in frames:
            output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(video.encode(None))
        if tone:
            samples = (8000 * np.sin(np.arange(96000) * 0.06)).astype(np.int16)[None]
            wave = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            wave.sample_rate, wave.pts = 48000, 0
            output.mux(tone.encode(wave))
            output.mux(tone.encode(None))
    return path


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
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", "000002.png"]
    assert all(np.array_equal(a, b) for a, b in zip(open_frames(tmp_path / "out"), frames, strict=True))
    (tmp_path / "natural").mkdir()
    for number in (1, 2, 10):
        Image.new("L", (4, 4), number).save(tmp_path / "natural" / f"f{number}.png")
    (tmp_path / "natural" / "notes.txt").write_text("no frame")
    source = open_frames(tmp_path / "natural")
    assert [int(frame[0, 0, 0]) for frame in source] == [1, 2, 10]
    assert (source.fps, source.count) == (25, 3)


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


def test_iterating_again_starts_again(tmp_path):
    with open_frames(save(tmp_path / "a.mp4", clip(9))) as source:
        first = next(iter(source))
        assert np.array_equal(first, next(iter(source)))
        assert len(list(source)) == 9


def test_images_are_read_whatever_their_mode(tmp_path):
    Image.new("RGBA", (6, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()
    Image.fromarray(np.full((4, 6), 32896, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png") == 128).all()
    Image.new("L", (6, 4), 7).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (6, 4, 3)


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"large\.png .*scale it down"):
        read_image(tmp_path / "large.png")


def disc(height, width, radius):
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < radius**2
    return np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(120, 200), (200, 120)])
def test_a_circle_stays_a_circle(fit, shape):
    picture = square(disc(*shape, 40), 64, fit)
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
    white = picture[..., 0] > 127
    rows, columns = white.any(1).sum(), white.any(0).sum()
    assert rows == columns
    assert abs(rows - 80 * 64 / {"crop": 120, "pad": 200}[fit]) <= 1


def test_padding_continues_the_edge_and_shows_the_whole_frame():
    frame = np.full((20, 40, 3), 90, np.uint8)
    frame[0], frame[-1] = 10, 200
    picture = square(frame, 40, "pad")
    assert (picture[:10] == 10).all()
    assert (picture[30:] == 200).all()
    assert np.array_equal(picture[10:30], frame)


def test_a_frame_of_the_right_size_is_not_touched():
    frame = clip(1, 64, 64)[0]
    assert np.array_equal(square(frame, 64), frame)


def cut(path, whole, share):
    data = whole.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


@pytest.mark.parametrize("share", [0.5, 0.97])
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mp4", "libx264", {}),
        ("fast.mp4", "libx264", {"movflags": "+faststart"}),
        ("a.avi", "mpeg4", {}),
        ("a.webm", "libvpx", {}),
        ("a.gif", "gif", {}),
    ],
)
def test_a_truncated_video_is_refused_before_any_work(tmp_path, name, codec, options, share):
    whole = save_raw(tmp_path / name, codec, clip(25), options=options)
    assert len(list(open_frames(whole))) == 25
    with pytest.raises(UserError, match=r"short.*(copy|give)"):
        open_frames(cut(tmp_path / f"cut-{name}", whole, share))


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("this is not an image")
    Image.fromarray(clip(1)[0]).save(tmp_path / "whole.png")
    cut(tmp_path / "cut.png", tmp_path / "whole.png", 0.6)
    for name in ("text.mp4", "empty.mp4", "folder", "missing.mp4", "text.png", "cut.png"):
        with pytest.raises(UserError, match=rf"{name} .*;") as caught:
            first_frame(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_video_damaged_inside_says_where(tmp_path):
    path = save(tmp_path / "a.mp4", clip(30))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    size = struct.unpack(">I", data[start - 8 : start - 4])[0]
    data[start : start + size - 8] = b"\xff" * (size - 8)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.mp4 .*damaged"):
        list(open_frames(path))


def broken():
    yield clip(1)[0]
    raise RuntimeError


@pytest.mark.parametrize("name", ["out.mp4", "out.gif", "out/"])
def test_a_failure_leaves_the_old_output_as_it_was(tmp_path, name):
    save(f"{tmp_path}/{name}", clip(4))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(RuntimeError):
        save(f"{tmp_path}/{name}", broken())
    with pytest.raises(UserError, match="no frame came"):
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


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not beside the repository")
def test_real_clips_are_whole_and_readable():
    clips = sorted(REAL.glob("*/test/*"))[:12]
    assert clips
    for path in clips:
        with open_frames(path) as source:
            frame = next(iter(source))
            assert frame.shape[2] == 3
            assert 1 <= source.fps <= 60
