"""How a camera held a picture: the orientation in the EXIF data of a JPEG, PNG or WebP file.

1 is upright. Of the others, 3 is turned by 180°, 6 and 8 by 90°, and 2, 4, 5 and 7 are mirrored. A
file without one is upright, and so is one whose EXIF data are damaged. XMP is not looked at, nor
what a PNG holds behind its pixels.
"""

UPRIGHT = 1
_TAG = 0x0112
_MARK = b"Exif\0\0"
PNG = b"\x89PNG\r\n\x1a\n"


def orientation(data: bytes) -> int:
    """The orientation of an encoded image, 1 to 8."""
    if data.startswith(b"\xff\xd8\xff"):
        tiff = _of_jpeg(data)
    elif data.startswith(PNG):
        tiff = _of_png(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        tiff = _of_webp(data)
    else:
        return UPRIGHT
    return _tag(tiff) if tiff else UPRIGHT


def _of_jpeg(data: bytes) -> bytes:
    """The content of the EXIF segment, which precedes the frame's header; JFIF's may precede it."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if 0xC0 <= marker <= 0xC3 or marker in (0xD9, 0xDA):
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xE1 and data[at + 4 : at + 10] == _MARK:
            return data[at + 10 : end]
        at = end
    return b""


def _of_png(data: bytes) -> bytes:
    at = len(PNG)
    while at + 8 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if kind == b"eXIf":
            return data[at + 8 : end - 4]
        if kind in (b"IDAT", b"IEND"):
            break
        at = end
    return b""


def _of_webp(data: bytes) -> bytes:
    """Only an extended file has one."""
    at = 12
    if data[at : at + 4] != b"VP8X":
        return b""
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            return data[at + 8 : at + 8 + size].removeprefix(_MARK)
        at += 8 + size + size % 2
    return b""


def _tag(tiff: bytes) -> int:
    """The orientation in the first directory of EXIF data, which have TIFF's form."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return UPRIGHT

    def number(at: int, size: int) -> int:
        # mypy takes a str for the order of bytes for too wide.
        return int.from_bytes(tiff[at : at + size], "little" if order == "little" else "big")

    start = number(4, 4)
    for entry in range(start + 2, start + 2 + 12 * min(number(start, 2), len(tiff) // 12), 12):
        if number(entry, 2) == _TAG:
            # A number of 16 bits; some programs write 32.
            found = number(entry + 8, 4 if number(entry + 2, 2) == 4 else 2)
            return found if 1 <= found <= 8 else UPRIGHT
    return UPRIGHT
