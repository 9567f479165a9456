"""Is a video file complete, or truncated (an aborted download, a full disk)?

FFmpeg decodes the rest of a truncated file and often reports nothing. So the size that the
container declares is compared with the file's size before any work, which reads only a few bytes.
After decoding, the number of frames or seconds is compared with the declared one.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

import av

from maskanim_jax.errors import UserError, check_regular

CONTAINERS = (
    "mov,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,h264,hevc,m4v,av1,obu,ivf,vc1,flv,live_flv,asf,ogg,mxf,nut,rm,wtv,dv,"
    "yuv4mpegpipe,rawvideo,apng,png_pipe,jpeg_pipe,jpegls_pipe,j2k_pipe,jpegxl_pipe,webp_pipe,bmp_pipe,tiff_pipe,"
    "wav,mp3,aac,flac"
)
READ_ONLY_THIS_FILE = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
"""Options of FFmpeg: playlists and file lists are refused, since they could
include other local files.
"""
_MOST_BOXES = 100_000
_MOST_ELEMENTS = 10_000_000
_MATROSKA_PARENTS = {b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"}
"""Segment and cluster; live recordings do not declare their sizes."""
_NESTED = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}

MP4_BOXES = set(b"ftyp moov mdat free skip wide moof sidx styp uuid pnot meta".split())


def check_not_truncated(path: Path) -> None:
    """Raises UserError if the file (mp4, mov, avi, webm, mkv, gif) is shorter than its container
    declares.

    Other formats, and files that declare no size (live recordings), pass.
    """
    check_regular(path)
    actual = path.stat().st_size
    if actual == 0:
        raise UserError(f"{path} is an empty file; copy or download the video again")
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[4:8] in MP4_BOXES:
            stated = _mp4_end(file, actual)
            if (samples := _mp4_samples(file, 0, min(stated, actual), [_MOST_BOXES])) > actual:
                raise UserError(f"{path} declares {samples:,} frames in {actual:,} bytes; copy or download it again")
        elif head[:4] == b"RIFF":
            stated = _riff_end(file, actual)
        elif head[:4] == b"\x1a\x45\xdf\xa3":
            stated = _matroska_end(file)
        elif head[:4] == b"GIF8":
            file.seek(max(0, actual - 512))
            stated = actual if b"\x3b" in file.read().rstrip(b"\0")[-1:] else actual + 1
        else:
            return
    if stated > actual:
        raise UserError(f"{path} is truncated (its last frames are missing); copy or download it again")


def declared_frame_count(stream: av.VideoStream) -> int:
    """Number of frames that the container declares; 0 if it declares none (Matroska, MPEG-TS,
    fragments).
    """
    if not stream.frames:
        return 0
    # The header's plain count is too high for trimmed files, whose edit list hides frames from the player, and for
    # AVI files with dropped frames, which have no bytes.
    shown = sum(entry.size > 0 and not entry.is_discard for entry in stream.index_entries)
    return min(shown, stream.frames)


def declared_seconds(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """End time of the video as declared by Matroska and WebM, which
    declare no frame count; else 0.
    """
    if "matroska" not in container.format.name:
        return 0.0
    stamp = stream.metadata.get("DURATION", "")
    parts = stamp.strip("\x00 ").split(":")
    try:
        return sum(float(part) * unit for part, unit in zip(parts, (3600, 60, 1), strict=True))
    except ValueError:
        pass
    # If the file has sound, its duration may be that of the sound.
    if len(container.streams) == 1 and container.duration:
        return container.duration / 1e6
    return 0.0


def ends_whole(path: Path) -> bool:
    """Whether a Matroska or WebM file ends at the end of one of its elements; a
    truncated file does not.
    """
    actual = path.stat().st_size
    with path.open("rb") as file:
        for _ in range(_MOST_ELEMENTS):
            if file.tell() >= actual:
                return file.tell() == actual
            first = (file.read(1) or b"\0")[0]
            kind = bytes([first]) + file.read(max(0, 8 - first.bit_length()))
            size, unknown = _ebml_size(file)
            if kind in _MATROSKA_PARENTS:
                continue
            if unknown:
                return False
            file.seek(size, 1)
    return False


def _mp4_end(file: BinaryIO, actual: int) -> int:
    """Where the last top-level box ends, in bytes."""
    position = 0
    for _ in range(_MOST_BOXES):
        if position + 8 > actual:
            break
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        if kind not in MP4_BOXES and not kind.isalnum():
            return position  # trailing bytes after the last box are accepted
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:  # 0: the box extends to the end of the file
            return actual
        position += size
    return position


def _mp4_samples(file: BinaryIO, position: int, end: int, boxes_left: list[int]) -> int:
    """The largest number of samples that a track between two positions declares; each needs at
    least a byte.

    FFmpeg allocates an index for all declared samples, whether the file contains them or not.
    """
    most = 0
    while position + 8 <= end and boxes_left[0] > 0:
        boxes_left[0] -= 1
        file.seek(position)
        head = file.read(20)
        size, kind = struct.unpack(">I4s", head[:8])
        begin = 8
        if size == 1 and len(head) >= 16:
            size, begin = int.from_bytes(head[8:16], "big"), 16
        size = size or end - position
        if size < begin:
            break
        if kind in _NESTED:
            most = max(most, _mp4_samples(file, position + begin, min(end, position + size), boxes_left))
        elif kind in (b"stsz", b"stz2") and len(head) == 20:
            most = max(most, int.from_bytes(head[16:20], "big"))
        position += size
    return most


def _riff_end(file: BinaryIO, actual: int) -> int:
    """Where the last RIFF chunk ends; files beyond 2 GiB hold several."""
    position = 0
    for _ in range(_MOST_BOXES):
        if position + 8 > actual:
            break
        file.seek(position)
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind != b"RIFF" or size == 0:  # 0: the writer never filled it in
            return min(position, actual)
        position += 8 + size
    return position


def _matroska_end(file: BinaryIO) -> int:
    """Where the segment ends; 0 if it is not declared (all bits set)."""
    file.seek(4)
    header, _ = _ebml_size(file)
    file.seek(header, 1)
    if file.read(4) != b"\x18\x53\x80\x67":
        return 0
    size, unknown = _ebml_size(file)
    return 0 if unknown else file.tell() + size


def _ebml_size(file: BinaryIO) -> tuple[int, bool]:
    """A variable-length size, and whether it means "unknown"."""
    first = (file.read(1) or b"\0")[0]
    length = 9 - first.bit_length()
    if length > 8:
        return 0, True
    value = int.from_bytes(bytes([first & ((1 << (8 - length)) - 1)]) + file.read(length - 1), "big")
    return value, value == (1 << (7 * length)) - 1
