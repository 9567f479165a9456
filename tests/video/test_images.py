"""Is every image mode read, and are frames made square without distortion?"""

import numpy as np
import pytest
from clips import clip
from PIL import Image

from maskanim_jax.errors import UserError
from maskanim_jax.video.images import read_image, square


def test_images_are_read_whatever_their_mode(tmp_path):
    Image.new("RGBA", (6, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (read_image(tmp_path / "clear.png") == 255).all()
    Image.fromarray(np.full((4, 6), 32896, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png") == 128).all()
    Image.new("L", (6, 4), 7).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png").shape == (4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (6, 4, 3)


def test_an_image_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"large\.png .*scale it down"):
        read_image(tmp_path / "large.png")


def disc(height, width, radius):
    y, x = np.mgrid[:height, :width]
    inside = (y - height / 2 + 0.5) ** 2 + (x - width / 2 + 0.5) ** 2 < radius**2
    return np.where(inside[..., None], 255, 0).astype(np.uint8).repeat(3, axis=2)


@pytest.mark.parametrize("fit", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(120, 200), (200, 120)])
def test_a_circle_stays_a_circle(fit, shape):
    picture = square(disc(*shape, 40), 64, fit)
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
    white = picture[..., 0] > 127
    rows, columns = white.any(1).sum(), white.any(0).sum()
    assert rows == columns
    assert abs(rows - 80 * 64 / {"crop": 120, "pad": 200}[fit]) <= 1


def test_padding_continues_the_edge_and_shows_the_whole_frame():
    frame = np.full((20, 40, 3), 90, np.uint8)
    frame[0], frame[-1] = 10, 200
    picture = square(frame, 40, "pad")
    assert (picture[:10] == 10).all()
    assert (picture[30:] == 200).all()
    assert np.array_equal(picture[10:30], frame)


def test_pixels_of_the_right_size_are_not_touched():
    frame = clip(1, 64, 67)[0]
    assert np.array_equal(square(frame, 64), frame[:, 1:65])


def test_a_frame_is_shrunk_without_aliasing():
    wide = np.zeros((64, 128, 3), np.uint8)
    wide[:, 32:96] = np.indices((64, 64)).sum(0)[..., None] % 2 * 255  # a checkerboard, black to both sides
    assert np.abs(square(wide, 16)[2:-2, 2:-2].astype(int) - 127).max() <= 2
