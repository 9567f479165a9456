"""How does a stored record become a frame?"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

try:  # decodes the same pixels as Pillow straight into the batch, in two thirds of its time
    import simplejpeg
except ImportError:
    simplejpeg = None


class Stored(NamedTuple):
    """What the reader asks of one record: the encoded picture, the clip's name, the frame number in it."""

    picture: bytes
    clip: str
    number: int


def unpack(record: bytes) -> Stored:
    """Takes a serialized tf.train.Example apart. Raises ValueError when it is none or lacks a field."""
    # What tfds's own parser gives, without the arrays it wraps around every field: a tenth of its time.
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    try:
        feature = tf_example_pb2.Example.FromString(record).features.feature
        return Stored(
            feature["frame"].bytes_list.value[0],
            feature["clip"].bytes_list.value[0].decode(),
            feature["index"].int64_list.value[0],
        )
    except (DecodeError, IndexError) as error:
        raise ValueError("no record of a frame") from error


def decode(picture: bytes, out: np.ndarray) -> None:
    """Decodes JPEG, PNG or whatever else Pillow reads into `out`, (S, S, 3) uint8 RGB, C-contiguous.

    Raises ValueError, and leaves anything in `out`, for bytes that are no whole picture or one of another size.
    """
    if simplejpeg is not None and picture[:2] == b"\xff\xd8":
        frame = simplejpeg.decode_jpeg(picture, buffer=out)
        if frame.shape != out.shape:
            raise ValueError(f"a picture of {frame.shape[1]} x {frame.shape[0]}")
        return
    from PIL import Image

    try:
        with Image.open(io.BytesIO(picture)) as image:
            frame = np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("no whole picture") from error
    if frame.shape != out.shape:
        raise ValueError(f"a picture of {frame.shape[1]} x {frame.shape[0]}")
    out[:] = frame
