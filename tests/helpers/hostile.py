"""Which files would an attacker send? Generated, small on disk; each must be refused with one sentence."""

import os
import struct
import zipfile
import zlib


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, width, height, data=b""):
    """A PNG whose header says (width, height), with `data` as its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def gif(path, width, height):
    """A GIF of one pixel on a canvas of (width, height)."""
    canvas = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    path.write_bytes(canvas + b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;")
    return path


def with_many_samples(path, whole, count):
    """The mp4 `whole`, whose index now says `count` samples of one byte."""
    data = bytearray(whole.read_bytes())
    at = data.index(b"stsz") + 8
    data[at : at + 8] = struct.pack(">II", 1, count)
    path.write_bytes(data)
    return path


def playlist(path, kind, of):
    """A text that FFmpeg would follow to another file of this machine."""
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{of}\n#EXT-X-ENDLIST\n"
    path.write_text(hls if kind == "hls" else f"ffconcat version 1.0\nfile {of.name}\n")
    return path


def pipe(path):
    """A named pipe without a writer: opening it would block forever."""
    os.mkfifo(path)
    return path


def pickled(path, data):
    """A torch zip around a pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


def tuple_as_key(depth, twice):
    """A pickle with a dict whose key is a tuple in a tuple ..., each holding the one before once or twice."""
    return b"\x80\x02})" + (b"2\x86" if twice else b"\x85") * depth + b"Ns."


def equal_hashes(count):
    """A pickle with a dict whose integer keys all have one hash."""
    keys = (((1 << 61) - 1) * (i + 1) for i in range(count))
    return b"\x80\x02}(" + b"".join(b"\x8a\x0c" + key.to_bytes(12, "little") + b"N" for key in keys) + b"u."


def headers(folder):
    """Pictures of a few bytes whose headers say more pixels than any memory holds."""
    from PIL import Image

    small, big = Image.new("RGB", (16, 16), "red"), 100_000
    made = []

    def put(name, kind, at, replaced):
        path = folder / name
        small.save(path, kind)
        data = bytearray(path.read_bytes())
        begin = data.index(at) + len(at)
        data[begin : begin + len(replaced)] = replaced
        path.write_bytes(data)
        made.append(path)

    put("start-of-frame.jpg", "JPEG", b"\xff\xc0\x00\x11\x08", struct.pack(">HH", 65535, 65535))
    put("info.bmp", "BMP", struct.pack("<I", 40), struct.pack("<ii", big, big))
    (folder / "text.ppm").write_bytes(b"P6 %d %d 255\n" % (big, big) + bytes(99))
    small.save(folder / "a.webp", lossless=True)
    still = (folder / "a.webp").read_bytes()[12:]
    side = (16_383).to_bytes(3, "little") * 2
    frame = b"ANMF" + struct.pack("<I", 16 + len(still)) + bytes(6) + b"\x0f\0\0" * 2 + b"\x64\0\0\0" + still
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + side + b"ANIM" + struct.pack("<IIH", 6, 0, 0) + frame * 2
    (folder / "canvas.webp").write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return [*made, folder / "text.ppm", folder / "canvas.webp"]


def text_bomb(path):
    """A PNG with comments that unpack to gigabytes."""
    comment = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100 << 20), 9))
    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    body = _chunk(b"IHDR", header) + comment * 20 + _chunk(b"IDAT", zlib.compress(bytes(4))) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def many_frames(path, count, side):
    """A gif of `count` frames of one pixel each, on a canvas that is drawn anew for every one of them."""
    canvas = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"!\xf9\x04\x08\x05\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    path.write_bytes(canvas + frame * count + b";")
    return path


def grows_on_the_way(path, side):
    """A motion JPEG, whose second frame says that it is (side, side)."""
    import av
    import numpy as np

    with av.open(str(path), "w") as output:
        video = output.add_stream("mjpeg", rate=25)
        video.height, video.width, video.pix_fmt = 48, 64, "yuvj420p"
        for _ in range(3):
            output.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        output.mux(video.encode(None))
    data, at = bytearray(path.read_bytes()), 0
    for _ in range(2):
        at = data.index(b"\xff\xc0\x00\x11", at) + 4
    data[at + 1 : at + 5] = struct.pack(">HH", side, side)
    path.write_bytes(data)
    return path


def npz(path, header, data=b"", packed=False, magic=b"\x93NUMPY\x01\x00"):
    """An npz with one array, whose header is the text given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        text = header.encode() + b"\n"
        archive.writestr("a.npy", magic + struct.pack("<H", len(text)) + text + data)
    return path


def npz_bombs(folder):
    """Small npz files that promise terabytes, objects or endless nesting."""
    said = "{{'descr': {}, 'fortran_order': False, 'shape': {}}}"
    return [
        npz(folder / "shape.npz", said.format("'<f4'", "(1099511627776,)")),
        npz(folder / "none.npz", said.format("'<f4'", "(0, 99999999999999999999)"), b"1234"),
        npz(folder / "negative.npz", said.format("'<f4'", "(-2, -2)"), bytes(16)),
        npz(folder / "packed.npz", said.format("'|u1'", f"({1 << 26},)"), bytes(1 << 26), packed=True),
        npz(folder / "objects.npz", said.format("'|O'", "(1,)"), b"\x80\x04N."),
        npz(folder / "item.npz", said.format("'|V2147483647'", "(1,)")),
        npz(folder / "nested.npz", "(" * 9000),
        npz(folder / "version.npz", said.format("'<f4'", "()"), bytes(4), magic=b"\x93NUMPY\x09\x00"),
    ]


def torch_bomb(path, size):
    """A torch zip whose one storage unpacks to `size` bytes."""
    tree = (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu\x8a\x08" + (size // 4).to_bytes(8, "little") + b"tQK\x00"
        b"\x8a\x08" + (size // 4).to_bytes(8, "little") + b"\x85K\x01\x85\x89}tRs."
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tree)
        with archive.open("archive/data/0", "w", force_zip64=True) as out:
            for _ in range(size >> 20):
                out.write(bytes(1 << 20))
    return path


def keras(path, shapes, **kernel):
    """Keras' VGG-19 h5 with first kernels that are made with the given options of h5py."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("block1_conv1")
        group.create_dataset("bias", shapes["conv1_1/bias"], "f4")
        group.create_dataset("kernel", shapes["conv1_1/kernel"], **({"dtype": "f4"} | kernel))
    return path
