"""Is a truncated, damaged or invalid clip refused with one sentence, and an intact one never?"""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import clip, save, save_raw
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.video.reader import first_frame, open_frames

REAL = Path(__file__).parents[3] / "shared" / "data"


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
    with pytest.raises(UserError, match=r"truncated.*(copy|give)"):
        open_frames(cut(tmp_path / f"cut-{name}", whole, share))


def mdat(data):
    """Where the bytes of the frames of an mp4 begin, and how many they are."""
    start = data.index(b"mdat") + 4
    return start, struct.unpack(">I", data[start - 8 : start - 4])[0] - 8


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_frames_that_the_container_promises_must_come(tmp_path, share):
    """A truncated file with corrected sizes, as some tools write it: every byte is in its place, but frames are missing."""
    frames = np.random.default_rng(0).integers(0, 255, (40, 64, 64, 3), dtype=np.uint8)
    whole = save_raw(tmp_path / "a.mp4", "libx264", frames, options={"movflags": "+faststart"})
    data = bytearray(cut(tmp_path / "cut.mp4", whole, share).read_bytes())
    start, _ = mdat(data)
    data[start - 8 : start - 4] = struct.pack(">I", len(data) - start + 8)
    (tmp_path / "cut.mp4").write_bytes(data)
    # Decoders with several threads pass over half of a frame; one on a single core reports it.
    with pytest.raises(UserError, match=r"cut\.mp4 is (truncated: \d+ of its 40 frames|corrupt after frame \d+)"):
        list(open_frames(tmp_path / "cut.mp4"))


def test_seconds_that_the_container_promises_must_come(tmp_path):
    whole = save_raw(tmp_path / "a.webm", "libvpx", clip(50))
    data = bytearray(whole.read_bytes())
    segment = data.index(b"\x18\x53\x80\x67") + 4
    data[segment : segment + 8] = b"\x01" + b"\xff" * 7  # a size that is not known, as live recordings have
    (tmp_path / "cut.webm").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"cut\.webm is truncated: .* of 2\.00 s"):
        list(open_frames(tmp_path / "cut.webm"))


def test_frames_hidden_by_an_edit_list_are_not_missed(tmp_path):
    """What trimming without encoding again makes: the file keeps all packets from the keyframe before the first shown frame."""
    whole = save_raw(tmp_path / "a.mp4", "libx264", clip(40))
    with av.open(str(whole)) as old, av.open(str(tmp_path / "trimmed.mp4"), "w") as new:
        video = old.streams.video[0]
        copy = new.add_stream_from_template(video)
        for packet in old.demux(video):
            if packet.dts is not None:
                offset = round(Fraction(10, 25) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
                new.mux(packet)
    source = open_frames(tmp_path / "trimmed.mp4")
    assert (source.count, len(list(source))) == (30, 30)


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("this is not an image")
    Image.fromarray(clip(1)[0]).save(tmp_path / "whole.png")
    cut(tmp_path / "cut.png", tmp_path / "whole.png", 0.6)
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    for name in ("text.mp4", "empty.mp4", "folder", "missing.mp4", "text.png", "cut.png", "gone.mp4"):
        with pytest.raises(UserError, match=rf"{name} .*;") as caught:
            first_frame(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path / "a.mp4", clip(1))

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match=r"a\.mp4 cannot be read \(Permission denied\);"):
        open_frames(path)


def test_a_video_damaged_inside_says_where(tmp_path):
    path = save(tmp_path / "a.mp4", clip(30))
    data = bytearray(path.read_bytes())
    start, size = mdat(data)
    data[start : start + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"a\.mp4 .*corrupt"):
        list(open_frames(path))


@pytest.mark.skipif(not REAL.is_dir(), reason="the real clips are not beside the repository")
def test_real_clips_are_whole_and_readable():
    clips = sorted(REAL.glob("*/test/*"))[:12]
    assert clips
    for path in clips:
        with open_frames(path) as source:
            frame = next(iter(source))
            assert frame.shape[2] == 3
            assert 1 <= source.fps <= 60
