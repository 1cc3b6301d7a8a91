"""Decodes GIF, BMP and WebP files with Pillow, and explains why a picture cannot be decoded.

TensorFlow decodes all frames of an animated GIF. For 600 frames of 1,000 × 1,000 pixels, this takes
5.9 s. TensorFlow refuses an animated WebP. In both formats, Pillow can stop after the first frame.
"""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image, WebPImagePlugin  # noqa: F401  # Image.open does not import this plugin.

# Pillow's own limit of pixels is off: this module checks --max_image_pixels before decoding.
Image.MAX_IMAGE_PIXELS = None

_FORMATS = ("GIF", "BMP", "WEBP")
_READ = "JPEG, PNG, WebP, BMP and GIF are read"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
# Formats that this program cannot read. Each entry has a slice, a tuple of marks, and the name of a
# format. If the slice of a file's bytes equals one of the marks, the file has this format.
_OTHERS = (
    (slice(0, 4), (b"II*\0", b"MM\0*"), "TIFF"),
    (slice(4, 12), (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1"), "HEIC"),
    (slice(4, 12), (b"ftypavif", b"ftypavis"), "AVIF"),
    (slice(0, 2), (b"\xff\x0a",), "JPEG XL"),
    (slice(4, 8), (b"JXL ",), "JPEG XL"),
    (slice(0, 4), (b"%PDF",), "PDF"),
)


class UndecodableError(ValueError):
    """Raised if a picture cannot be decoded; the error's text is the reason.

    Inside tf.data, TensorFlow turns this error into an InvalidArgumentError.
    """


def pixels(data: bytes, channels: int, max_pixels: int) -> np.ndarray:
    """Decodes the first frame of a GIF, BMP or WebP file: uint8 [h, w, channels].

    Raises:
      UndecodableError: if the file has another format, is damaged, or has too many pixels.
    """
    with _opened(data, _FORMATS) as image:
        _check_size(image.size, max_pixels)
        with _explained():
            decoded = np.asarray(image.convert(_MODES[channels]))
    return decoded.reshape(*decoded.shape[:2], channels)


def reason(data: bytes, max_pixels: int) -> str | None:
    """Returns the reason why a picture cannot be decoded, or None if Pillow can decode it."""
    try:
        with _opened(data, (*_FORMATS, "JPEG", "PNG")) as image:
            _check_size(image.size, max_pixels)
            with _explained():
                image.load()
    except UndecodableError as error:
        return str(error)
    return None


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Replaces an error of Pillow in the `with` block by an UndecodableError with the reason."""
    try:
        yield
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError) as error:
        raise UndecodableError(f"it is damaged: {error}") from error


def _opened(data: bytes, formats: tuple[str, ...]) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=formats)
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        raise UndecodableError(_not_read(data)) from error


def _not_read(data: bytes) -> str:
    if not data:
        return "it is empty"
    for part, marks, name in _OTHERS:
        if data[part] in marks:
            return f"it holds {name}, and {_READ}"
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"RIFF")):
        return "it is damaged"
    return f"it is not a picture of a known format: {_READ}"


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise UndecodableError(
            f"it has {width:,} × {height:,} pixels, more than --max_image_pixels={max_pixels}; "
            "raise that limit"
        )
