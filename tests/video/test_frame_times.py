"""Is each frame shown when the driving video shows it, and does the sound stay in step?"""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clips import clip, save, save_raw
from PIL import Image
from timed_clips import MS, clicks, timed, times

from input_pipeline.preparation.boxes import ClipRange
from input_pipeline.preparation.clips import raw_clip
from input_pipeline.preparation.cropping import write_crop
from input_pipeline.preparation.decode import square_frames
from input_pipeline.preparation.subject import Found, Part
from maskanim_jax import crop
from maskanim_jax.video.reader import open_frames
from maskanim_jax.video.timing import Timing, from_ticks
from maskanim_jax.video.writer import VideoWriter

UNEVEN = [0, 100, 200, 300, 333, 367, 400, 900, 933, 1000]
"""Milliseconds."""


def copied(path, output):
    """Writes the frames of a driving video as an animation is written."""
    with open_frames(path) as frames, VideoWriter(output, frames.timing, path) as writer:
        for frame in frames:
            writer.write(frame)
    return writer


@pytest.mark.parametrize("output", ["out.mp4", "out.mov"])
@pytest.mark.parametrize(
    ("name", "codec", "ticks", "base", "last"),
    [
        ("phone.mp4", "libx264", [90 * tick for tick in UNEVEN], Fraction(1, 90000), 90 * 33),
        ("phone.mov", "libx264", [0, 20, 40, 61, 80, 120, 141], Fraction(1, 600), 20),
        ("screen.mkv", "libx264", UNEVEN, MS, 33),
        ("browser.webm", "libvpx", UNEVEN, MS, 33),
        ("hold.mp4", "libx264", [40 * i for i in range(9)], MS, 3000),
        ("slides.mkv", "libx264", [0, 520, 1000], MS, 40),
        ("dropped.avi", "mpeg4", [0, 1, 2, 3, 9, 10, 11, 30], Fraction(1, 30), 1),
        ("late.mkv", "libx264", [5000 + tick for tick in UNEVEN], MS, 33),
        ("fine.mp4", "libx264", [0, 2, 3, 9, 12], Fraction(1, 240), 1),
    ],
)
def test_each_frame_is_shown_when_the_driving_shows_it(tmp_path, name, codec, ticks, base, last, output):
    driving = timed(tmp_path / name, ticks, base, codec, last)
    copied(driving, tmp_path / output)
    shown, end = times(tmp_path / output)
    right = [(tick - ticks[0]) * base for tick in ticks]
    assert shown == right
    assert abs(end - right[-1] - last * base) < Fraction(3, 100)
    levels = [round((int(frame.mean()) - 8) / 8) for frame in open_frames(tmp_path / output)]
    assert levels == [number % 30 for number in range(len(ticks))]


@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "60000/1001", "25", "120", "240", "15/2"])
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.mov", "libx264")]
)
def test_a_constant_rate_stays_an_exact_fraction_though_milliseconds_are_rounded(tmp_path, name, codec, rate):
    rate = Fraction(rate)
    driving = save_raw(tmp_path / name, codec, clip(60, 16, 16), rate=rate)
    with open_frames(driving) as source:
        assert source.timing.constant
        assert source.fps == rate
    copied(driving, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4")[0] == [number / rate for number in range(60)]


def test_a_rate_that_nothing_states_is_measured(tmp_path):
    """What MediaRecorder writes: milliseconds, no rate, no duration, no size."""
    ticks = [*range(0, 2500, 100), *range(2500, 5000, 33)]
    live = timed(tmp_path / "stated.webm", ticks, MS, "libvpx", options={"live": "1"}, rate=1000)
    data = live.read_bytes()
    at = data.index(b"\x23\xe3\x83")  # DefaultDuration, which becomes an empty element
    (tmp_path / "live.webm").write_bytes(data[:at] + b"\xec\x85" + bytes(5) + data[at + 7 :])
    with open_frames(tmp_path / "live.webm") as source:
        assert float(source.fps) == pytest.approx(len(ticks) / 5, rel=0.01)
        assert source.timing.steady == 30
    copied(tmp_path / "live.webm", tmp_path / "out.mp4")
    shown, end = times(tmp_path / "out.mp4")
    assert shown == [tick * MS for tick in ticks]
    assert float(end) == pytest.approx(5, abs=0.05)


def test_a_last_picture_that_stands_for_seconds_is_no_cut_file(tmp_path):
    path = timed(tmp_path / "hold.mkv", [0, 40, 80], MS, last=3000, options={"live": "1"})
    assert len(list(open_frames(path))) == 3


@pytest.mark.parametrize(("picture", "sound"), [(0, 0), (500, 0), (0, 0.5), (1200, 0.9), (33, 0)])
@pytest.mark.parametrize(
    ("name", "codec", "output"),
    [
        ("a.mp4", "aac", "out.mp4"),
        ("a.mkv", "libopus", "out.mp4"),
        ("a.mkv", "libopus", "out.mov"),
        ("a.ts", "ac3", "out.mp4"),
    ],
)
def test_sound_stays_in_step_whichever_begins_first(tmp_path, name, codec, output, picture, sound):
    driving = timed(tmp_path / name, [picture + tick for tick in UNEVEN], sound=codec, sound_at=sound)
    before = [click - float(times(driving)[0][0]) for click in clicks(driving)]
    copied(driving, tmp_path / output)
    shown, _ = times(tmp_path / output)
    after = [click - float(shown[0]) for click in clicks(tmp_path / output)]
    assert len(before) == len(after) == 2
    assert np.abs(np.subtract(before, after)).max() < 0.01
    assert np.abs(np.subtract([float(at - shown[0]) * 1000 for at in shown], UNEVEN)).max() < 1


def test_sound_longer_than_the_picture_is_kept(tmp_path):
    driving = timed(tmp_path / "a.mp4", [0, 40, 80], sound="aac", last=40)
    copied(driving, tmp_path / "out.mp4")
    assert times(tmp_path / "out.mp4")[1] == Fraction(12, 100)
    assert clicks(tmp_path / "out.mp4") == pytest.approx([0.2, 0.7], abs=0.01)


def test_a_folder_and_a_shard_are_resampled_to_a_constant_rate(tmp_path):
    driving = timed(tmp_path / "a.mp4", UNEVEN, last=500)
    right = [max(i for i, tick in enumerate(UNEVEN) if tick <= slot * 1000 / 30 + 17) for slot in range(45)]
    writer = copied(driving, f"{tmp_path}/out/")
    assert "10 frames with a variable rate became 45 at a constant 30 frames per second" in writer.note
    assert [round((int(frame.mean()) - 8) / 8) for frame in open_frames(tmp_path / "out")] == right
    fps, frames, _ = square_frames(raw_clip(driving), 32)
    assert fps == 30
    assert [round((int(frame.mean()) - 8) / 8) for frame in frames] == right


def test_a_piece_of_a_clip_of_variable_rate_is_counted_in_its_own_frames(tmp_path):
    driving = timed(tmp_path / "a.mp4", UNEVEN, last=500)
    fps, frames, _ = square_frames(replace(raw_clip(driving), clip_range=ClipRange(3, 8)), 32)
    levels = [round((int(frame.mean()) - 8) / 8) for frame in frames]
    assert sorted(set(levels)) == [3, 4, 5, 6, 7]
    assert levels.count(6) == 15  # half a second
    assert fps == 30
    assert levels.count(7) < 5


def test_a_crop_keeps_the_times_of_its_part(tmp_path):
    driving = timed(tmp_path / "a.mp4", UNEVEN, sound="aac", last=500)
    crop.main([f"--input={driving}", f"--output={tmp_path}/out.mp4", "--box=0,0,16,16"])
    shown, end = times(tmp_path / "out.mp4")
    assert shown == [tick * MS for tick in UNEVEN]
    assert end == Fraction(3, 2)
    assert clicks(tmp_path / "out.mp4") == pytest.approx([0.2, 0.7], abs=0.01)
    found = Found([Part(2, 7, (0, 0, 16, 16))], 10, "box", [])
    write_crop(driving, f"{tmp_path}/part.mp4", found, found.parts[0])
    shown, end = times(tmp_path / "part.mp4")
    assert shown == [(tick - 200) * MS for tick in UNEVEN[2:7]]
    assert end == 700 * MS
    found = Found([Part(0, 4, (0, 0, 16, 16))], 10, "box", [])
    write_crop(driving, f"{tmp_path}/begin.mp4", found, found.parts[0])
    assert clicks(tmp_path / "begin.mp4") == pytest.approx([0.2], abs=0.01)  # the sound ends with the part


@pytest.mark.parametrize(
    ("kind", "delays"),
    [
        ("PNG", [40, 300, 20, 1000]),
        ("WEBP", [40, 300, 20, 1000]),
        ("GIF", [40, 300, 20, 1000]),
        ("AVIF", [40, 300, 20, 1000]),
    ],
)
def test_a_moving_picture_has_the_delay_of_each_frame(tmp_path, kind, delays):
    first, *others = [Image.new("RGB", (16, 16), (60 * i, 20, 200 - 50 * i)) for i in range(4)]
    path = tmp_path / f"a.{kind.lower()}"
    first.save(path, kind, save_all=True, append_images=others, duration=delays)
    copied(path, tmp_path / "out.mp4")
    shown, end = times(tmp_path / "out.mp4")
    assert [float(at) for at in shown] == pytest.approx([0, 0.04, 0.34, 0.36], abs=1e-4)
    assert float(end) == pytest.approx(1.36, abs=1e-3)


def hundredths(path):
    with Image.open(path) as image:
        delays = []
        for index in range(image.n_frames):
            image.seek(index)
            delays.append(image.info["duration"] // 10)
    return delays


@pytest.mark.parametrize("rate", ["25", "30", "50", "60000/1001", "60", "120", "240", "1000"])
def test_a_gif_lasts_as_long_as_its_driving_by_the_rule_of_browsers(tmp_path, rate):
    frames = [np.full((16, 16, 3), i % 256, np.uint8) for i in range(round(Fraction(rate)))]
    with VideoWriter(tmp_path / "out.gif", Fraction(rate)) as writer:
        for frame in frames:
            writer.write(frame)
    delays = hundredths(tmp_path / "out.gif")
    assert min(delays) >= 2
    assert sum(delays) == 100
    assert len(delays) == min(50, len(frames))
    assert bool(writer.note) == (Fraction(rate) > 50)


def test_a_gif_has_the_times_of_a_variable_rate(tmp_path):
    driving = timed(tmp_path / "a.mp4", UNEVEN, last=2000)
    copied(driving, tmp_path / "out.gif")
    starts = np.cumsum([0, *hundredths(tmp_path / "out.gif")])
    assert starts.tolist() == [round(tick / 10) for tick in [*UNEVEN, 3000]]


def test_one_frame_and_clocks_that_are_set_back(tmp_path):
    save(tmp_path / "one.gif", clip(1), Fraction(2))
    assert hundredths(tmp_path / "one.gif") in ([50], [0])
    timing = Timing(MS, Fraction(25), constant=False, recorded=True)
    for index, at in enumerate(
        [10, Fraction("10.04"), Fraction("10.04"), Fraction("10.12"), 1, Fraction("1.04"), None]
    ):
        timing.record(index, None if at is None else Fraction(at))
    assert timing.starts == [0, 40, 41, 120, 160, 200, 240]
    assert timing.origin == 10
    assert from_ticks([5, 5], MS, Fraction(0), []) is None
