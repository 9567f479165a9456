"""How are still images read as (H, W, 3) uint8 RGB and made square?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from maskanim_jax.errors import UserError, check_regular
from maskanim_jax.video.color_profiles import to_srgb

Fit = Literal["crop", "pad"]
IMAGE_SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".bmp",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".avif",
        ".heic",
        ".heif",
        ".hif",
    ]
)
_AVIF, _HEIF = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
MAX_PIXELS = 1 << 27
"""Limit for one image or frame: 134 megapixels, 400 MB as RGB. Larger ones are usually
decompression bombs.
"""


def read_image(path: str | Path) -> np.ndarray:
    """Reads a still image as (H, W, 3) uint8 RGB, with its EXIF orientation applied; see `to_rgb`.

    Raises UserError if it is missing, not an image, truncated or too large to be safe.
    """
    with readable(path, "image"), open_image(path) as opened:
        check_pixels(path, *opened.size)
        return to_rgb(ImageOps.exif_transpose(opened))


def open_image(path: str | Path) -> Image.Image:
    """Opens the picture without decoding it.

    Raises UserError for a HEIC picture if pillow-heif (the extra `heic`) is not installed.
    """
    if _brands(path) & _HEIF and not _brands(path) & _AVIF:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            raise UserError(
                f"{path} is a HEIC image, which needs an optional package: run `pip install 'maskanim_jax[heic]'`, or save it as JPEG or PNG"
            ) from None
        register_heif_opener()
    return Image.open(path)


def is_still(path: Path) -> bool:
    """Whether the file is an AVIF or HEIC picture, or a sequence of them, whatever its name."""
    return bool(_brands(path) & (_AVIF | _HEIF))


def moves(path: Path) -> bool:
    """Whether the file is an AVIF that declares a sequence."""
    return b"avis" in _brands(path)


def _brands(path: str | Path) -> set[bytes]:
    """The brands in the header of an ISO media file."""
    with open(path, "rb") as file:
        head = file.read(12)
        if head[4:8] != b"ftyp":
            return set()
        others = file.read(min(int.from_bytes(head[:4], "big") - 12, 256))
        return {head[8:12], *(others[at : at + 4] for at in range(4, len(others) - 3, 4))}


def to_rgb(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 sRGB from an image of any mode: its ICC profile is applied, transparency is
    laid over white, 16 bits are scaled to 8.
    """
    if image.mode.startswith("I") or image.mode == "F":  # Pillow's own conversion clips instead of scaling
        return _from_deep_grey(np.asarray(image))
    image = to_srgb(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.array(image.convert("RGB"))


def square(frame: np.ndarray, size: int, fit: Fit = "crop") -> np.ndarray:
    """(H, W, 3) uint8 to (size, size, 3) uint8 with its aspect ratio kept, antialiased.

    "crop" takes the centre square; "pad" shows the whole frame and continues its edge pixels to the
    square.
    """
    if fit not in get_args(Fit):
        raise UserError(f"fit is crop or pad, not {fit!r}")
    height, width = frame.shape[:2]
    if height == width == size:
        return frame
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2  # whole pixels, to avoid needless resampling
        picture = Image.fromarray(np.ascontiguousarray(frame[top : top + side, left : left + side]))
        return np.array(picture.resize((size, size), Image.Resampling.LANCZOS))
    scale = size / max(height, width)
    inner = (max(1, round(width * scale)), max(1, round(height * scale)))
    scaled = np.asarray(Image.fromarray(frame).resize(inner, Image.Resampling.LANCZOS))
    x, y = size - inner[0], size - inner[1]
    return np.pad(scaled, ((y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0)), mode="edge")


def is_image(path: Path) -> bool:
    """Whether the name has a still image's suffix; hidden files are excluded."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorts 2.png before 10.png."""
    parts = re.split(r"(\d+)", path.name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


@contextmanager
def readable(path: str | Path, kind: str) -> Iterator[None]:
    """Converts Pillow's exceptions into a UserError about the `kind` (image, gif) at `path`."""
    try:
        check_regular(path)
        yield
    except FileNotFoundError:
        raise missing(path, "give an image") from None
    except Image.DecompressionBombError:
        limit = min(MAX_PIXELS, 2 * (Image.MAX_IMAGE_PIXELS or MAX_PIXELS))
        raise UserError(f"{path} has more than {limit:,} pixels; scale it down first") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        raise UserError(f"{path} is not a complete {kind} ({one_line(error)}); save or copy it again") from error


def check_pixels(path: str | Path, width: int, height: int) -> None:
    """Raises UserError for an image that is too large to be safe, from its header, before memory is
    allocated.
    """
    if width * height > MAX_PIXELS:
        raise UserError(f"{path} has {width} x {height} pixels, more than {MAX_PIXELS:,}; scale it down first")


def missing(path: str | Path, hint: str) -> UserError:
    """The error message for a missing path."""
    if Path(path).is_symlink():
        return UserError(f"{path} is a broken link; repair or remove it")
    return UserError(f"{path} does not exist; {hint}")


def one_line(error: BaseException) -> str:
    """The first line of an exception's message."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]


def _from_deep_grey(values: np.ndarray) -> np.ndarray:
    """(H, W) 16-bit integers, or floats in [0, 1] or [0, 255], to (H, W, 3) uint8."""
    if values.dtype.kind == "f":
        scaled = values * (255.0 if values.max(initial=0.0) <= 1.0 else 1.0)
    else:
        scaled = values / (257.0 if values.max(initial=0) > 255 or values.dtype == np.uint16 else 1.0)
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
