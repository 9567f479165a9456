"""Are mirrored videos, AVIF and HEIC stills, pictures with a profile and HDR videos read as a phone shows them?"""

import gc
import io
import sys
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.filter import Graph
from clips import save_raw
from PIL import Image, ImageCms

from maskanim_jax.errors import UserError
from maskanim_jax.video import orientation
from maskanim_jax.video.hdr import HLG, PQ, ToneMapper, hlg_light, pq_light
from maskanim_jax.video.images import read_image
from maskanim_jax.video.orientation import upright
from maskanim_jax.video.reader import first_frame, open_frames

QUARTERS = np.zeros((48, 64, 3), np.uint8)
QUARTERS[:24, :32], QUARTERS[:24, 32:] = (220, 30, 30), (30, 220, 30)
QUARTERS[24:, :32], QUARTERS[24:, 32:] = (30, 30, 220), (220, 220, 30)

ORIENTATIONS = {  # by the number of EXIF: what is done to the stored picture, and the display matrix (a, b, c, d)
    1: (lambda p: p, (1, 0, 0, 1)),
    2: (lambda p: p[:, ::-1], (-1, 0, 0, 1)),
    3: (lambda p: p[::-1, ::-1], (-1, 0, 0, -1)),
    4: (lambda p: p[::-1], (1, 0, 0, -1)),
    5: (lambda p: p.swapaxes(0, 1), (0, 1, 1, 0)),
    6: (lambda p: np.rot90(p, -1), (0, 1, -1, 0)),
    7: (lambda p: p.swapaxes(0, 1)[::-1, ::-1], (0, -1, -1, 0)),
    8: (lambda p: np.rot90(p), (0, -1, 1, 0)),
}


@pytest.mark.parametrize("number", ORIENTATIONS)
def test_all_eight_display_matrices_and_exif_orientations(tmp_path, number):
    shown, (a, b, c, d) = ORIENTATIONS[number]
    whole = save_raw(tmp_path / "whole.mp4", "libx264", [QUARTERS] * 2)
    data = bytearray(whole.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the matrix of the only track
    matrix = [a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    (tmp_path / "turned.mp4").write_bytes(data)
    right = shown(QUARTERS).astype(int)
    seen = first_frame(tmp_path / "turned.mp4").astype(int)
    assert seen.shape == right.shape
    assert np.abs(seen - right).mean() < 8
    exif = Image.Exif()
    exif[0x0112] = number
    for name in ("a.jpg", "a.png", "a.webp", "a.avif", "a.tif"):
        stated = {"tiffinfo": {0x0112: number}} if name == "a.tif" else {"exif": exif}
        Image.fromarray(QUARTERS).save(tmp_path / name, **stated)
        seen = read_image(tmp_path / name).astype(int)
        assert seen.shape == right.shape
        assert np.abs(seen - right).mean() < 8


def test_frames_are_freed_without_the_garbage_collector(tmp_path):
    save_raw(tmp_path / "a.mp4", "libx264", [QUARTERS] * 60)
    gc.collect()
    gc.disable()
    try:
        with open_frames(tmp_path / "a.mp4") as source:
            assert sum(1 for _ in source) == 60
        held = sum(isinstance(each, av.VideoFrame) for each in gc.get_objects())
    finally:
        gc.enable()
    assert held < 5


def test_the_matrix_is_read_again_at_key_frames_and_large_frames_are_collected(monkeypatch):
    first, second = (1, 0, 0, 1), (0, 1, -1, 0)
    frames = [
        SimpleNamespace(width=5000, height=5000, key_frame=i % 10 == 0, matrix=(first, second)[i > 25])
        for i in range(70)
    ]
    collected = []
    monkeypatch.setattr(orientation, "display_matrix", lambda frame: frame.matrix)
    monkeypatch.setattr(orientation.gc, "collect", lambda: collected.append(len(seen)))
    reader, seen = orientation.OrientationReader(), []
    for frame in frames:
        seen.append(reader(frame))
    assert seen == [first] * 30 + [second] * 40
    assert collected == [30, 60]


def test_a_matrix_that_is_a_little_off_is_the_nearest_orientation():
    assert (upright(QUARTERS, (3000, 65000, -65000, 3000)) == np.rot90(QUARTERS, -1)).all()
    assert upright(QUARTERS, None) is QUARTERS


@pytest.mark.parametrize("name", ["a.avif", "a.jpg", "a.mp4", "a"])
def test_an_avif_is_read_whole_and_over_white_whatever_its_name(tmp_path, name):
    clear = np.dstack([QUARTERS, np.full((48, 64), 255, np.uint8)])
    clear[32:, :, 3] = 0
    Image.fromarray(clear).save(tmp_path / name, "AVIF", quality=95)
    seen = first_frame(tmp_path / name).astype(int)
    assert np.abs(seen[:30] - QUARTERS[:30]).mean() < 8
    assert (seen[34:] >= 253).all()
    assert open_frames(tmp_path / name).count == 1


def heic(path):
    """The head of a HEIC file is enough to know it."""
    path.write_bytes((24).to_bytes(4, "big") + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(100))
    return path


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "IMG_1.jpg", "a.mp4"])
def test_a_heic_without_its_package_is_one_sentence(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UserError, match=r"HEIC.*maskanim_jax\[heic\]"):
        first_frame(heic(tmp_path / name))


def test_a_heic_is_read_with_its_package_and_a_broken_one_is_a_sentence(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    Image.fromarray(QUARTERS).save(tmp_path / "a.heic", quality=95)
    assert np.abs(first_frame(tmp_path / "a.heic").astype(int) - QUARTERS).mean() < 8
    with pytest.raises(UserError, match=r"broken\.heic is not a complete image"):
        first_frame(heic(tmp_path / "broken.heic"))


def gamma_profile():
    """An RGB profile of the primaries of sRGB whose gamma is 1, made of sRGB's own by replacing its curves."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    for tag in range(count):
        at = 132 + 12 * tag
        if data[at : at + 4] in (b"rTRC", b"gTRC", b"bTRC"):
            offset = int.from_bytes(data[at + 4 : at + 8], "big")
            data[offset : offset + 14] = b"curv" + bytes(4) + (1).to_bytes(4, "big") + (256).to_bytes(2, "big")
            data[at + 8 : at + 12] = (14).to_bytes(4, "big")
    return bytes(data)


def to_linear(levels):
    signal = np.asarray(levels, np.float64) / 255
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def test_a_profile_is_converted_to_srgb_in_every_mode(tmp_path):
    profile = gamma_profile()
    linear = np.rint(to_linear(QUARTERS) * 255).astype(np.uint8)
    image = Image.fromarray(linear)
    for name in ("a.png", "a.webp", "a.tif"):
        image.save(tmp_path / name, icc_profile=profile, lossless=True)
        assert np.abs(read_image(tmp_path / name).astype(int) - QUARTERS).max() <= 6
    image.save(tmp_path / "a.jpg", icc_profile=profile, quality=98, subsampling=0)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - QUARTERS).mean() < 8
    image.quantize(16).save(tmp_path / "palette.png", icc_profile=profile)
    assert np.abs(read_image(tmp_path / "palette.png").astype(int) - QUARTERS).max() <= 12
    image.convert("L").save(tmp_path / "grey.jpg", icc_profile=profile, quality=98)
    plain = np.asarray(image.convert("L"), int)[0, 0]
    assert read_image(tmp_path / "grey.jpg")[0, 0, 0] > plain + 30
    clear = image.convert("RGBA")
    clear.putalpha(Image.fromarray(np.where(np.arange(48) < 24, 255, 0).astype(np.uint8)[:, None].repeat(64, 1)))
    clear.save(tmp_path / "clear.png", icc_profile=profile)
    seen = read_image(tmp_path / "clear.png").astype(int)
    assert np.abs(seen[:24] - QUARTERS[:24]).max() <= 6
    assert (seen[24:] == 255).all()


def made_profile(kind, space, connection, tags):
    """An ICC profile with these tags, which Pillow can't make."""
    white = b"XYZ " + bytes(4) + b"".join(round(value * 65536).to_bytes(4, "big") for value in (0.9642, 1, 0.8249))
    table, body = b"", b""
    for name, data in {b"wtpt": white, **tags}.items():
        offset = 128 + 4 + 12 * (len(tags) + 1) + len(body)
        table += name + offset.to_bytes(4, "big") + len(data).to_bytes(4, "big")
        body += data + bytes(-len(data) % 4)
    head = bytes(8) + (0x02400000).to_bytes(4, "big") + kind + space + connection + bytes(12) + b"acsp" + bytes(28)
    head += white[8:] + bytes(48)
    whole = head + (len(tags) + 1).to_bytes(4, "big") + table + body
    return len(whole).to_bytes(4, "big") + whole[4:]


def test_profiles_of_grey_and_of_ink_are_used_and_one_of_other_colours_is_not(tmp_path):
    linear = made_profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": b"curv" + bytes(8)})
    levels = np.arange(0, 256, 5, dtype=np.uint8)[None].repeat(8, 0)
    Image.fromarray(levels).save(tmp_path / "grey.png", icc_profile=linear)
    right = np.interp(levels / 255, to_linear(np.arange(256)), np.arange(256))
    assert np.abs(read_image(tmp_path / "grey.png")[:, 2:, 0] - right[:, 2:]).max() <= 2  # near black tables are coarse
    corners = [bytes([0 if any(ink) else 255, 128, 128]) for ink in np.ndindex(2, 2, 2, 2)]  # any ink is black
    same = bytes(range(256))
    one = [0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x10000]
    head = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + b"".join(value.to_bytes(4, "big") for value in one)
    ink = made_profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": head + same * 4 + b"".join(corners) + same * 3})
    for inks, shown in (((0, 0, 0, 0), 255), ((255, 0, 0, 0), 0), ((0, 0, 0, 255), 0)):
        Image.new("CMYK", (8, 8), inks).save(tmp_path / "ink.tif", icc_profile=ink)
        assert np.abs(read_image(tmp_path / "ink.tif").astype(int) - shown).max() <= 2
    for wrong in (linear, ink):
        Image.fromarray(QUARTERS).save(tmp_path / "rgb.png", icc_profile=wrong)
        assert (read_image(tmp_path / "rgb.png") == QUARTERS).all()


def test_a_profile_of_srgb_itself_one_that_is_broken_and_one_of_other_colours_change_nothing(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(QUARTERS)
    for number, profile in enumerate((srgb, b"no profile", srgb[:200], srgb[:128] + bytes(400))):
        image.save(tmp_path / f"{number}.png", icc_profile=profile)
        assert (read_image(tmp_path / f"{number}.png") == QUARTERS).all()
    image.convert("CMYK").save(tmp_path / "cmyk.tif", icc_profile=srgb)
    assert np.abs(read_image(tmp_path / "cmyk.tif").astype(int) - QUARTERS).max() <= 2


def coded(transfer, levels):
    """sRGB levels as PQ or HLG code values in BT.2020, by searching the curves."""
    wide = np.linalg.inv(
        [[1.660491, -0.587641, -0.07285], [-0.12455, 1.1329, -0.008349], [-0.018151, -0.100579, 1.11873]]
    )
    light = np.clip(to_linear(levels) @ wide.T, 0, None)
    codes = np.linspace(0, 1, 20001)
    if transfer == PQ:
        return np.interp(light, pq_light(codes), codes)
    shown = light * 203 / 1000
    luma = np.maximum(shown @ [0.2627, 0.678, 0.0593], 1e-9)[..., None]
    return np.interp(shown * luma ** (1 / 1.2 - 1), hlg_light(codes) * 203 / 1000, codes)


def in_bt2020(frame, pixel_format):
    """An RGB frame as YUV in BT.2020; `VideoFrame.reformat` ignores the matrix before PyAV 18."""
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)),
        graph.add("scale", "out_color_matrix=bt2020:out_range=tv"),
        graph.add("format", pixel_format),
        graph.add("buffersink"),
    ).configure()
    frame.pts = 0
    graph.vpush(frame)
    return graph.vpull()


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_is_mapped_to_what_a_phone_shows(transfer):
    colours = np.array(
        [[255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 120, 90], [255, 255, 255], [64, 64, 64], [0, 0, 0]]
    )
    levels = colours.repeat(16, 0)[None].repeat(32, 0)
    signal = np.rint(coded(transfer, levels) * 65535).astype(np.uint16)
    frame = av.VideoFrame.from_ndarray(signal, format="rgb48le")
    frame = in_bt2020(frame, "yuv420p10le")
    frame.color_trc, frame.color_primaries, frame.colorspace, frame.color_range = transfer, 9, 9, 1
    frame.time_base = Fraction(1, 25)
    mapper = ToneMapper()
    for _ in range(2):
        seen = mapper(frame).to_ndarray()[16, 8::16].astype(int)
        assert np.abs(seen - colours).max() <= 16
    bright = frame.reformat(format="yuv420p10le")
    assert np.diff(pq_light(np.linspace(0, 1, 50))).min() > 0
    assert bright.width == frame.width


def test_a_video_that_says_it_is_pq_is_mapped(tmp_path):
    with av.open(str(tmp_path / "hdr.mp4"), "w") as output:
        video = output.add_stream("libx264", rate=25)
        video.height = video.width = 32
        video.pix_fmt = "yuv420p"
        context = video.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = 9, 9, PQ, 1
        grey = np.full((32, 32, 3), 148, np.uint8)  # 0.58: the white of paper
        picture = av.VideoFrame.from_ndarray(grey, format="rgb24")
        output.mux(video.encode(in_bt2020(picture, "yuv420p")))
        output.mux(video.encode(None))
    assert first_frame(tmp_path / "hdr.mp4").min() >= 245


@pytest.mark.parametrize(("name", "codec"), [("song.mp3", "libmp3lame"), ("song.m4a", "aac"), ("song.flac", "flac")])
def test_sound_with_a_cover_is_no_video(tmp_path, name, codec):
    cover = io.BytesIO()
    Image.fromarray(QUARTERS).save(cover, "JPEG")
    with av.open(str(tmp_path / name), "w", format="mp4" if name == "song.m4a" else None) as output:
        tone = output.add_stream(codec, rate=44100, layout="mono")
        with av.open(io.BytesIO(cover.getvalue()), format="jpeg_pipe") as picture:
            stream = output.add_stream_from_template(picture.streams.video[0])
            stream.disposition = av.stream.Disposition.attached_pic
            covers = [packet for packet in picture.demux(video=0) if packet.size]
        for packet in covers:
            packet.stream = stream
            packet.pts = packet.dts = 0
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.int16), format="s16", layout="mono")
        silence.sample_rate, silence.pts = 44100, 0
        output.mux(covers)
        output.mux(tone.encode(silence))
        output.mux(tone.encode(None))
    with pytest.raises(UserError, match=r"song.* holds no video, only sound with a cover picture"):
        open_frames(tmp_path / name)
