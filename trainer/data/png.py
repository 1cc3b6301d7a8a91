"""Encodes arrays of pixels as PNG: a thumbnail of one image, or a grid of thumbnails."""

import io

import numpy as np
from PIL import Image

_LARGEST = 96  # Longest side of a thumbnail, in pixels.
_GAP = 2  # Pixels between the pictures of a grid.


def thumbnail(pixels: np.ndarray) -> bytes:
    """Returns an image uint8 [h, w, c] as a PNG thumbnail with a longest side of 49 to 96 pixels.

    A small image is enlarged by a whole factor, so that its pixels stay squares. If an image has
    three or four channels, the first three are shown as RGB. Otherwise, only the first channel is
    shown, in grey.
    """
    return _encoded(_picture(pixels))


def grid(images: np.ndarray, columns: int) -> bytes:
    """Returns a PNG with the thumbnails of images uint8 [n, h, w, c], in rows of `columns`."""
    pictures = [_picture(pixels) for pixels in images]
    width, height = pictures[0].width + _GAP, pictures[0].height + _GAP
    rows = -(-len(pictures) // columns)
    size = columns * width - _GAP, rows * height - _GAP
    whole = Image.new("RGB", size, "white")
    for i, picture in enumerate(pictures):
        whole.paste(picture, (i % columns * width, i // columns * height))
    return _encoded(whole)


def _picture(pixels: np.ndarray) -> Image.Image:
    colours = pixels[..., :3] if pixels.shape[-1] in (3, 4) else pixels[..., 0]
    picture = Image.fromarray(np.ascontiguousarray(colours))
    longest = max(picture.size)
    if longest > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
        return picture
    factor = _LARGEST // longest
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
    )


def _encoded(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
