"""Is the sound of any driving video written so that browsers and phones play it?"""

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import clip, save
from timed_clips import clicking, clicks, timed

from maskanim_jax.errors import UserError
from maskanim_jax.video.writer import VideoWriter


def codec_of(path):
    with av.open(str(path)) as container:
        audio = container.streams.audio[0]
        return audio.codec_context.codec.canonical_name, audio.codec_context.sample_rate


def result(tmp_path, driving, name):
    save(tmp_path / name, clip(25), Fraction(25), driving)
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "sound", "rate", "output", "right"),
    [
        ("a.mp4", "libopus", 48000, "out.mov", ("aac", 48000)),
        ("a.mp4", "libopus", 48000, "out.mp4", ("opus", 48000)),
        ("a.mp4", "flac", 44100, "out.mov", ("aac", 44100)),
        ("a.mkv", "flac", 96000, "out.mov", ("aac", 48000)),
        ("a.avi", "pcm_u8", 11024, "out.mp4", ("aac", 11025)),
        ("a.avi", "pcm_s16le", 22254, "out.mov", ("pcm_s16le", 22254)),
        ("a.avi", "pcm_s16le", 22254, "out.mp4", ("aac", 24000)),
        ("a.avi", "adpcm_ms", 7418, "out.mp4", ("aac", 8000)),
        ("a.mov", "pcm_alaw", 8000, "out.mov", ("aac", 8000)),
        ("a.ts", "ac3", 48000, "out.mp4", ("aac", 48000)),
        ("a.ts", "ac3", 48000, "out.mov", ("aac", 48000)),
        ("a.mkv", "eac3", 48000, "out.m4v", ("aac", 48000)),
        ("a.ts", "mp2", 44100, "out.mp4", ("aac", 44100)),
        ("a.ts", "aac", 44100, "out.mp4", ("aac", 44100)),
        ("a.mkv", "alac", 44100, "out.mp4", ("aac", 44100)),
        ("a.mkv", "libvorbis", 44100, "out.mp4", ("aac", 44100)),
        ("a.avi", "libmp3lame", 8000, "out.mp4", ("aac", 8000)),
        ("a.avi", "libmp3lame", 44100, "out.mp4", ("mp3", 44100)),
    ],
)
def test_sound_is_copied_where_players_know_it_and_else_becomes_aac(tmp_path, name, sound, rate, output, right):
    if sound not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {sound}")
    codec = "libx264" if not name.endswith("avi") else "mpeg4"
    ticks = [40 * i for i in range(25)] if codec == "libx264" else list(range(25))
    base = Fraction(1, 1000) if codec == "libx264" else Fraction(1, 25)
    driving = timed(tmp_path / name, ticks, base, codec, sound=sound, rate_of_sound=rate)
    path = result(tmp_path, driving, output)
    assert codec_of(path) == right
    assert clicks(path) == pytest.approx(clicks(driving), abs=0.02)


def test_more_than_two_channels_become_stereo_and_gaps_silence(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        tone = output.add_stream("ac3", rate=48000, layout="5.1")
        for frame in clip(75, 32, 32):
            output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for begin in (0, 2):  # a second of sound, one of nothing, another of sound
            for frame in clicking(48000, begin):
                samples = np.repeat(frame.to_ndarray().astype(np.float32) / 32768, 6, 0)
                six = av.AudioFrame.from_ndarray(samples, format="fltp", layout="5.1")
                six.sample_rate, six.pts, six.time_base = 48000, frame.pts, frame.time_base
                output.mux(tone.encode(six))
        output.mux(tone.encode(None))
        output.mux(video.encode(None))
    path = result(tmp_path, tmp_path / "a.mkv", "out.mp4")
    with av.open(str(path)) as container:
        assert container.streams.audio[0].layout.name == "stereo"
    assert clicks(path) == pytest.approx(clicks(tmp_path / "a.mkv"), abs=0.02)


def test_damage_is_what_is_called_damaged(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        tone = output.add_stream("flac", rate=48000, layout="mono")
        for frame in clip(25, 32, 32):
            output.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for number, frame in enumerate(clicking(48000, 0)):
            for packet in tone.encode(frame):
                if number > 10:
                    broken = av.Packet(bytes(len(bytes(packet))))
                    broken.pts, broken.dts, broken.time_base = packet.pts, packet.dts, packet.time_base
                    broken.stream, packet = tone, broken
                output.mux(packet)
        output.mux(video.encode(None))
    with pytest.raises(UserError, match=r"a\.mkv has corrupt sound"):
        result(tmp_path, tmp_path / "a.mkv", "out.mov")
    assert not (tmp_path / "out.mov").exists()


def test_a_driving_without_sound_and_one_that_is_a_folder_give_none(tmp_path):
    folder = save(f"{tmp_path}/folder/", clip(2))
    with VideoWriter(tmp_path / "out.mp4", Fraction(25), folder) as writer:
        writer.write(clip(1)[0])
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio
