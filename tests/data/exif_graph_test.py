"""TensorFlow's graph reads the same orientations as Python does."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data.exif_test import PIXELS, jpeg_with, tiff
from trainer.data import exif, exif_graph

in_graph = tf.function(
    exif_graph.orientation, input_signature=[tf.TensorSpec([], tf.string)], autograph=False
)


def both(data: bytes) -> tuple[int, int]:
    """Orientations by the graph, and by Python from the whole file."""
    return int(in_graph(tf.constant(data))), exif.orientation(data) or exif.UPRIGHT


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("value", range(1, 9))
def test_the_orientation_of_a_jpeg_is_read(value, wide, order):
    assert both(jpeg_with(tiff(order, value, wide=wide))) == (value, value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_orientation_that_pillow_writes_is_read(kind):
    for value in range(1, 9):
        metadata, file = Image.Exif(), io.BytesIO()
        metadata[0x0112] = value
        PIXELS.save(file, kind, exif=metadata)
        assert both(file.getvalue()) == (value, value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_an_image_without_exif_is_upright(kind):
    file = io.BytesIO()
    PIXELS.save(file, kind)
    assert both(file.getvalue()) == (1, 1)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", exif.PNG, b"\xff", b"text"])
def test_files_of_a_few_bytes_are_upright(data):
    assert both(data) == (1, 1)


def test_padding_and_long_segments_before_the_exif_data_are_skipped():
    other = b"\xff\xe2" + struct.pack(">H", 60_002) + bytes(60_000)
    assert both(jpeg_with(tiff("II", 6), b"\xff", other)) == (6, 6)


def test_damaged_exif_gives_what_python_finds():
    whole = jpeg_with(tiff("MM", 6, before=9))
    file = io.BytesIO()
    metadata = Image.Exif()
    metadata[0x0112] = 8
    PIXELS.save(file, "PNG", exif=metadata)
    cases = [jpeg_with(b"nonsense"), *(jpeg_with(tiff("II", value)) for value in (0, 9, 65535))]
    cases += [data[:end] for data in (whole, file.getvalue()) for end in range(0, len(data), 3)]
    rng = np.random.default_rng(0)
    for number in range(400):
        data = bytearray((whole, file.getvalue())[number % 2])
        for at in rng.integers(2, min(len(data), 200), 3):
            data[at] = rng.integers(256)
        cases.append(bytes(data))
    found = [both(data) for data in cases]
    assert [graph for graph, _ in found] == [python for _, python in found]
    assert {graph for graph, _ in found} >= {1, 6, 8}


def test_a_file_of_padding_alone_ends_the_search_soon():
    """Python reads such a file to its end; a server must not."""
    assert in_graph(tf.constant(b"\xff\xd8" + b"\xff" * 10**6)) == 1
