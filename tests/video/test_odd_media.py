"""Are unusual but intact pictures and videos read as a person sees them?"""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import clip, save, save_raw
from PIL import Image

from input_pipeline.preparation.clips import raw_clip
from input_pipeline.preparation.decode import square_frames
from maskanim_jax.errors import UserError
from maskanim_jax.video.images import read_image
from maskanim_jax.video.reader import first_frame, open_frames
from maskanim_jax.video.writer import VideoWriter

SMOOTH = clip(1)[0]


def saved(path, image, **how):
    image.save(path, **how)
    return read_image(path).astype(int)


def test_pictures_of_every_mode_show_the_same(tmp_path):
    rgb = Image.fromarray(SMOOTH)
    assert np.abs(saved(tmp_path / "cmyk.jpg", rgb.convert("CMYK"), quality=97) - SMOOTH).mean() < 4
    grey = np.asarray(rgb.convert("L")).astype(int)
    assert np.abs(saved(tmp_path / "grey.jpg", rgb.convert("L"), quality=97) - grey[..., None]).mean() < 3
    assert (saved(tmp_path / "grey.png", rgb.convert("L")) == grey[..., None]).all()
    deep = (grey * 257).astype(np.uint16)
    assert (saved(tmp_path / "deep.png", Image.fromarray(deep)) == grey[..., None]).all()
    assert (saved(tmp_path / "dots.png", rgb.convert("1"))[..., 0] % 255 == 0).all()
    assert np.abs(saved(tmp_path / "palette.png", rgb.quantize(256)) - SMOOTH).mean() < 8
    faded = np.dstack([SMOOTH, np.full(SMOOTH.shape[:2], 128, np.uint8)])
    assert np.abs(saved(tmp_path / "faded.png", Image.fromarray(faded)) - (SMOOTH.astype(int) + 255) / 2).max() <= 2
    both = saved(tmp_path / "both.png", Image.fromarray(np.dstack([grey, 0 * grey]).astype(np.uint8), "LA"))
    assert (both == 255).all()


def deep_rgb(path, values):
    """A PNG of 16 bits a channel, which Pillow can't write."""
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as output:
        stream = output.add_stream("png", rate=1)
        stream.height, stream.width = values.shape[:2]
        stream.pix_fmt = "rgb48be"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(values, format="rgb48be")))
        output.mux(stream.encode(None))


def test_a_png_of_sixteen_bits_a_channel(tmp_path):
    deep_rgb(tmp_path / "deep.png", SMOOTH.astype(np.uint16) * 257)
    assert np.abs(read_image(tmp_path / "deep.png").astype(int) - SMOOTH).max() <= 1


@pytest.mark.parametrize(("kind", "suffix"), [("PNG", ".png"), ("WEBP", ".webp"), ("GIF", ".gif")])
def test_a_picture_that_moves_is_a_clip_and_its_first_frame_a_picture(tmp_path, kind, suffix):
    frames = [Image.new("RGB", (16, 16), (60 * i, 20, 200 - 50 * i)) for i in range(4)]
    path = tmp_path / f"a{suffix}"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=[40, 40, 40, 80], lossless=True)
    with open_frames(path) as source:
        assert (source.fps, source.count) == (20, 4)
        assert [int(frame[8, 8, 0]) for frame in source] == [0, 60, 120, 180]
    assert first_frame(path)[8, 8, 2] == 200
    if suffix != ".gif":
        assert read_image(path)[8, 8, 2] == 200


def test_a_picture_shown_where_an_animation_is_not_known_is_no_frame_of_it(tmp_path):
    frames = [Image.new("RGB", (16, 16), (60 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=40, default_image=True)
    assert [int(frame[8, 8, 0]) for frame in open_frames(tmp_path / "a.png")] == [60, 120]


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_turned_video_is_upright_for_animation_and_for_preparation(tmp_path, degrees):
    marked = np.zeros((48, 64, 3), np.uint8)
    marked[:24, :32] = 255  # a corner
    path = save_raw(tmp_path / "turned.mp4", "libx264", [marked] * 3, rotation=degrees)
    upright = np.rot90(marked, degrees // 90).astype(int)
    assert np.abs(first_frame(path).astype(int) - upright).mean() < 8
    prepared = next(square_frames(raw_clip(path), 48)[1]).astype(int)
    top = (upright.shape[0] - 48) // 2
    left = (upright.shape[1] - 48) // 2
    assert np.abs(prepared - upright[top : top + 48, left : left + 48]).mean() < 8


def patched(path, whole, kind, at, value, size=4):
    """The mp4 with the bytes `at` behind the name of its first box `kind` replaced."""
    data = bytearray(whole.read_bytes())
    begin = data.index(kind) + 4 + at
    data[begin : begin + size] = value.to_bytes(size, "big")
    path.write_bytes(data)
    return path


def test_the_frames_that_an_edit_list_hides_are_not_shown_and_not_missed(tmp_path):
    whole = save_raw(tmp_path / "whole.mp4", "libx264", clip(20))
    with av.open(str(whole)) as container:
        ticks = container.streams.video[0].time_base.denominator // 25
    data = whole.read_bytes()
    begin = data.index(b"elst") + 4
    (shown,) = struct.unpack(">I", data[begin + 12 : begin + 16])
    trimmed = patched(tmp_path / "trimmed.mp4", whole, b"elst", 12, shown + 5 * ticks)
    read = list(open_frames(trimmed))
    assert len(read) == 15
    assert np.abs(read[0].astype(int) - clip(20)[5]).mean() < 8


def with_pts(path, first, step, count=6, base=Fraction(1, 25)):
    with av.open(str(path), "w") as output:
        video = output.add_stream("mpeg4", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        video.codec_context.time_base = base
        for number, frame in enumerate(clip(count)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = first + number * step, base
            output.mux(video.encode(picture))
        output.mux(video.encode(None))
    return path


@pytest.mark.parametrize(("name", "first", "shown"), [("a.avi", 0, 6), ("a.mp4", -3, 3), ("a.mkv", 1000, 6)])
def test_a_video_may_begin_before_or_long_after_zero(tmp_path, name, first, shown):
    with open_frames(with_pts(tmp_path / name, first, 1)) as source:
        assert len(list(source)) == shown  # what an mp4 has before zero no player shows
        assert source.fps == 25


@pytest.mark.parametrize(("scale", "step"), [(1, 1 << 30), (0x7FFFFFFF, 1)])
def test_a_rate_that_no_camera_has_is_not_believed(tmp_path, scale, step):
    whole = save_raw(tmp_path / "whole.mp4", "mpeg4", clip(4), options={"use_editlist": "0"})
    timed = patched(tmp_path / "timed.mp4", whole, b"mdhd", 12, scale)
    data = bytearray(timed.read_bytes())
    at = data.index(b"stts") + 4
    data[at + 12 : at + 16] = step.to_bytes(4, "big")
    timed.write_bytes(data)
    with open_frames(timed) as source:
        assert Fraction(1, 1000) <= source.fps <= 10_000
        frames = list(source)
    assert len(frames) == 4
    with VideoWriter(tmp_path / "out.mp4", source.fps) as writer:
        for frame in frames:
            writer.write(frame)
    assert len(list(open_frames(tmp_path / "out.mp4"))) == 4


def test_a_video_without_a_frame_and_sound_alone_are_each_a_sentence(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        tone = output.add_stream("aac", rate=48000, layout="mono")
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
        wave.sample_rate, wave.pts = 48000, 0
        output.mux(tone.encode(wave))
        output.mux(tone.encode(None))
    with pytest.raises(UserError, match=r"sound\.mp4 holds no video"):
        open_frames(tmp_path / "sound.mp4")
    whole = save(tmp_path / "whole.mp4", clip(3))
    for box, at in ((b"stsz", 8), (b"stts", 4), (b"stsc", 4)):
        whole = patched(tmp_path / "none.mp4", whole, box, at, 0)
    with pytest.raises(UserError, match=r"none\.mp4"):
        list(open_frames(tmp_path / "none.mp4"))


def test_a_video_whose_sound_has_no_packets_is_written_without_a_fuss(tmp_path):
    with av.open(str(tmp_path / "mute.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        output.add_stream("aac", rate=48000, layout="mono")
        for frame in clip(5):
            output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(video.encode(None))
    result = save(tmp_path / "out.mp4", clip(5), Fraction(25), tmp_path / "mute.mkv")
    assert len(list(open_frames(result))) == 5


def test_alpha_of_a_codec_without_loss_becomes_white(tmp_path):
    frame = np.zeros((32, 32, 4), np.uint8)
    frame[:, 16:] = (200, 30, 40, 255)
    with av.open(str(tmp_path / "a.mov"), "w") as output:
        video = output.add_stream("qtrle", rate=25)
        video.height, video.width, video.pix_fmt = 32, 32, "argb"
        output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgba").reformat(format="argb")))
        output.mux(video.encode(None))
    shown = first_frame(tmp_path / "a.mov")
    assert (shown[:, :15] == 255).all()
    assert (shown[:, 17:] == (200, 30, 40)).all()
