"""A batch of encoded pictures is decoded as an evaluation decodes the same files."""

import functools
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.data import picture_source, pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.encoded_batch import decoder

MOST = 10**6


def encoded(size: tuple[int, int], kind: str, turned: int = 1, mode: str = "RGB") -> bytes:
    """A picture of smooth colours, `size` wide and high."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = turned
    Image.fromarray(pixels).convert(mode).save(file, kind, exif=exif)
    return file.getvalue()


PICTURES = [
    *(encoded((40 + turned, 31), "JPEG", turned) for turned in range(1, 9)),
    encoded((13, 200), "JPEG", mode="L"),
    encoded((24, 24), "PNG", mode="RGBA"),
    encoded((1, 1), "PNG"),
    encoded((50, 20), "PNG", 6, mode="L"),
    encoded((24, 24), "PNG", mode="P"),
]


@functools.cache
def traced(shape, augment):
    """Returns a decoder that is traced once, for any number of pictures."""
    batch = tf.TensorSpec([None], tf.string)
    return tf.function(decoder(shape, augment, MOST), input_signature=[batch], autograph=False)


@pytest.mark.parametrize("augment", ["none", "imagenet"])
@pytest.mark.parametrize("shape", [(24, 24, 3), (17, 29, 1)])
def test_images_equal_those_of_an_evaluation(tmp_path, shape, augment):
    paths = []
    for number, data in enumerate(PICTURES):
        (tmp_path / str(number)).write_bytes(data)
        paths.append(str(tmp_path / str(number)).encode())
    source = picture_source.load(paths, shape, MOST)
    bad = BadExamples(skip=False)
    batches = pipeline.evaluation(source, batch_size=13, shards=1, augment=augment, bad=bad)
    ((expected, _, _),) = batches
    decode = traced(shape, augment)
    np.testing.assert_array_equal(decode(tf.constant(PICTURES)), expected)
    assert decode(tf.constant([], tf.string)).shape == (0, *shape)


@pytest.mark.parametrize("augment", ["none", "imagenet"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encoded((9, 9), "GIF"), "neither a JPEG nor a PNG file"),
        (encoded((9, 9), "WEBP"), "neither a JPEG nor a PNG file"),
        (b"", "neither a JPEG nor a PNG file"),
        (PICTURES[0][:300], "(?i)jpeg"),
        (encoded((1001, 1000), "JPEG"), "too many pixels"),
        (encoded((1001, 1000), "PNG"), "too many pixels"),
    ],
    ids=["gif", "webp", "empty", "cut", "large jpeg", "large png"],
)
def test_what_cannot_be_decoded_is_an_error(data, message, augment):
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        traced((24, 24, 3), augment)(tf.constant([PICTURES[0], data]))


def test_the_graph_calls_no_python():
    graph = traced((24, 24, 3), "none").get_concrete_function().graph
    definition = graph.as_graph_def()
    bodies = [definition.node, *(each.node_def for each in definition.library.function)]
    operations = {node.op for body in bodies for node in body}
    assert "DecodePng" in operations
    assert not {op for op in operations if "PyFunc" in op}
