import io

import numpy as np
import pytest
from PIL import Image

from trainer.data import png

RNG = np.random.default_rng(0)


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_a_small_image_keeps_its_pixels(channels):
    pixels = RNG.integers(0, 256, (28, 20, channels), np.uint8)
    shown = decoded(png.thumbnail(pixels))
    expected = pixels[..., :3] if channels in (3, 4) else pixels[..., 0]
    assert shown.shape[:2] == (84, 60)
    np.testing.assert_array_equal(shown[::3, ::3], expected)
    np.testing.assert_array_equal(shown[2::3, 2::3], expected)


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 1), (96, 96)), ((96, 50), (96, 50)), ((97, 97), (96, 96)), ((224, 112), (96, 48))],
)
def test_a_thumbnail_has_at_most_96_pixels_a_side(shape, size):
    pixels = np.full((*shape, 3), 7, np.uint8)
    shown = decoded(png.thumbnail(pixels))
    assert shown.shape == (*size, 3)
    assert (shown == 7).all()


def test_a_grid_has_the_images_row_by_row():
    images = np.stack([np.full((50, 40, 1), i, np.uint8) for i in range(5)])
    shown = decoded(png.grid(images, 3))
    assert shown.shape == (2 * 50 + 2, 3 * 40 + 2 * 2, 3)
    corners = shown[::52, ::42, 0]
    assert corners.tolist() == [[0, 1, 2], [3, 4, 255]]  # The last place is empty, and white.
    assert (shown[50] == 255).all()
