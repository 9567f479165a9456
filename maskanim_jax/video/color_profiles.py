"""How are images with an ICC profile converted to sRGB?"""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

_MODE_OF = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SUITS = {"RGB": {"RGB", "RGBA", "RGBX", "P", "PA", "L", "LA"}, "GRAY": {"L", "LA", "1"}, "CMYK": {"CMYK"}}
"""Which modes of Pillow a profile of each colour space may belong to; grey files often carry an RGB
profile.
"""


def to_srgb(image: Image.Image) -> Image.Image:
    """Converts the image to sRGB with its embedded profile; keeps transparency.

    An image without a profile, or with a broken or mismatched one, is returned unchanged.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile:
        return image
    found = _transform(profile)
    if found is None or image.mode not in _SUITS[found[0]]:
        return image
    space, transform = found
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    plain = image.convert("RGBA") if image.mode in ("P", "PA") else image
    try:
        shown = ImageCms.applyTransform(plain.convert(_MODE_OF[space]), transform)
    except (ImageCms.PyCMSError, ValueError, OSError):
        return image
    if shown is None:
        return image
    if alpha is not None:
        shown.putalpha(alpha)
    return shown


@lru_cache(maxsize=16)
def _transform(profile: bytes) -> tuple[str, ImageCms.ImageCmsTransform] | None:
    """The profile's colour space and its transform to sRGB; None if it is broken,
    unknown or changes nothing.
    """
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
        if space not in _MODE_OF:
            return None
        transform = ImageCms.buildTransform(
            opened, ImageCms.createProfile("sRGB"), _MODE_OF[space], "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
        return None if space != "CMYK" and _changes_nothing(transform, _MODE_OF[space]) else (space, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a profile is sRGB up to rounding; such images stay unchanged, bit for bit."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        colours = Image.fromarray(levels[None])
    else:
        colours = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3))
    shown = ImageCms.applyTransform(colours, transform)
    assert shown is not None
    return bool(np.abs(np.asarray(shown, int) - np.asarray(colours.convert("RGB"), int)).max() <= 2)
