"""Reads the orientation from the EXIF data of a JPEG, PNG or WebP file.

The orientation says how the stored picture differs from the upright picture. Orientation 1 is
upright. Orientation 3 is turned by 180°, 6 and 8 are turned by 90°, and 2, 4, 5 and 7 are mirrored.
A file counts as upright if it has no orientation, or if its EXIF data are damaged. XMP data are
ignored, and so are EXIF data after a PNG's pixels.
"""

from typing import Literal

UPRIGHT = 1
_TAG, _WIDE = 0x0112, 4
_MARK = b"Exif\0\0"
PNG = b"\x89PNG\r\n\x1a\n"  # The first bytes of a PNG file.


def orientation(data: bytes) -> int | None:
    """Returns the orientation, 1 to 8, from a file's first bytes; None if more bytes are needed.

    A WebP file without EXIF data can give None even if `data` is the whole file. Callers treat
    such a file as upright.
    """
    if data.startswith(b"\xff\xd8\xff"):
        part = _of_jpeg(data)
    elif data.startswith(PNG):
        part = _of_png(data)
    elif data.startswith(b"RIFF") and data[8:16] == b"WEBPVP8X":
        part = _of_webp(data)
    else:
        return UPRIGHT
    return None if part is None else _tag(part)


def _of_jpeg(data: bytes) -> bytes | None:
    """Returns the EXIF data and all bytes after them; None if `data` is too short.

    If the file has no EXIF data, the result is b"". EXIF data are in one of the segments before the
    frame header, so the search ends at this header.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xC3 or marker in (0xD9, 0xDA):
            return b""
        if marker == 0xE1 and data[at + 4 : at + 10] == _MARK:
            return data[at + 10 :] if len(data) >= at + 18 else None  # TIFF's header: 8 bytes.
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None if at + 4 > len(data) else b""


def _of_png(data: bytes) -> bytes | None:
    at = len(PNG)
    while at + 8 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind == b"eXIf":
            return data[at + 8 :] if len(data) >= at + 16 else None
        if kind in (b"IDAT", b"IEND"):
            return b""
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return None


def _of_webp(data: bytes) -> bytes | None:
    """Returns the content of the EXIF chunk, which follows the pixels.

    The result is None if `data` lacks the chunk, or has less than its mark and TIFF's header.
    """
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            if len(data) < at + 8 + min(size, len(_MARK) + 8):
                return None
            return data[at + 8 : at + 8 + size].removeprefix(_MARK)
        at += 8 + size + size % 2
    return None


def _tag(tiff: bytes) -> int | None:
    """Returns the orientation in EXIF data; None if the data are cut off.

    `tiff` holds the data in TIFF's format. The orientation is in the first directory of the data.
    """
    if tiff[:4] not in (b"II*\0", b"MM\0*"):
        return UPRIGHT
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    start = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[start : start + 2], order)
    for at in range(start + 2, start + 2 + 12 * entries, 12):
        if at + 12 > len(tiff):
            return None
        if int.from_bytes(tiff[at : at + 2], order) == _TAG:
            # The standard stores the value in 16 bits, but some programs write 32 bits.
            wide = int.from_bytes(tiff[at + 2 : at + 4], order) == _WIDE
            value = int.from_bytes(tiff[at + 8 : at + (12 if wide else 10)], order)
            return value if value in range(1, 9) else UPRIGHT
    return UPRIGHT if start + 2 <= len(tiff) else None
