"""Which files would a stranger send to do harm? Made by code, small on disk; each is to be refused in one sentence."""

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
    """A named pipe that nobody writes to: who opens it waits for ever."""
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
