"""A Python program's source as a split that is read by index."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.support.squares import NAMES, Source, arrays
from trainer.data import pipeline, sources
from trainer.data.bad_examples import BadExamples
from trainer.data.python import source
from trainer.errors import UserError
from trainer.system.tensorflow_errors import translate


def loaded(data, image_size=None, **options):
    return source.load(data, NAMES, lambda label: label, image_size, 10**6, "data", **options)


def evaluated(data, bad=None, **options):
    """Returns images, labels and weights of all examples, as an evaluation reads them."""
    bad = bad or BadExamples(skip=False)
    batches = pipeline.evaluation(loaded(data, **options), batch_size=4, shards=1, bad=bad)
    with translate(bad.refusal):
        return [np.concatenate(each) for each in zip(*batches.as_numpy_iterator(), strict=True)]


def test_each_example_arrives_unchanged():
    images, labels, weights = evaluated(Source(12))
    expected = arrays(12)
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(labels, expected[1])
    assert weights.sum() == 12


def test_all_labels_are_read():
    found = loaded(Source(12, bad=[5]))
    expected = arrays(12)[1]
    expected[5] = -1
    np.testing.assert_array_equal(found.labels(), expected)


def test_an_error_of_the_source_names_the_index_and_the_line():
    with pytest.raises(UserError, match=r"index 7 of data cannot be used: KeyError: .*squares\.py"):
        evaluated(Source(12, bad=[7]))


def test_the_statistics_of_a_sample_name_the_index_and_the_line(monkeypatch):
    """A large set is sampled, here every second example of 12."""
    monkeypatch.setattr("trainer.data.sources._STATISTICS_BYTES", 100)
    monkeypatch.setattr("trainer.data.sources._STATISTICS_EXAMPLES", 6)
    with pytest.raises(UserError, match=r"index 8 of data cannot be used: KeyError: .*squares\.py"):
        sources.image_statistics(loaded(Source(12, bad=[8])), "none", BadExamples(skip=False))


def test_examples_at_some_indices_are_a_dataset():
    source = loaded(Source(12, bad=[8]))
    part = source.at([8, 3, 8])
    images = pipeline.evaluated(part, [1], "none")
    np.testing.assert_array_equal(images, arrays(12)[0][3:4])
    assert (part.examples, part.labels().tolist()) == (3, source.labels()[[8, 3, 8]].tolist())
    pipeline.evaluated(part, [0, 2], "none")
    assert part.unread(0) == part.unread(2) == source.unread(8)
    assert "no file for 8" in part.unread(0)
    assert part.unread(1) is None
    assert part.describe(1) == source.describe(3)


def test_a_bad_example_is_left_out_and_counted():
    bad = BadExamples(skip=True)
    _, _, weights = evaluated(Source(12, bad=[7]), bad)
    assert weights.tolist() == [1.0] * 7 + [0.0] + [1.0] * 4
    assert list(bad.reasons) == ["the example at index 7 of data"]


def test_a_label_outside_of_the_classes_is_named():
    items = [(np.zeros((4, 4), np.uint8), label) for label in (0, 1, 4, 3)]
    bad = BadExamples(skip=True)
    batches = pipeline.evaluation(loaded(items), batch_size=4, shards=1, bad=bad)
    list(batches)
    assert bad.reasons == {
        "the example at index 2 of data": "its label is not one of the run's classes"
    }


def test_an_image_of_another_shape_is_named_or_resized():
    items = [(np.zeros((4, 4), np.uint8), 0), (np.zeros((4, 6), np.uint8), 0)] * 2
    with pytest.raises(UserError, match=r"index [13] of data.*\(4, 6, 1\).*image_size= resizes"):
        evaluated(items)
    images, _, _ = evaluated(items, image_size=5)
    assert images.shape == (4, 5, 5, 1)


COLOUR = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
PICTURE = Image.fromarray(COLOUR)


def test_images_of_another_number_of_channels_are_refused_as_such():
    """Resizing would not help."""
    items = [(COLOUR[..., :1], 0), (COLOUR, 0)] * 2
    for size in (None, 5):
        with pytest.raises(UserError, match=r"\(4, 4, 3\), and the first one has 1 channel: "):
            evaluated(items, image_size=size)


def test_an_image_for_a_trained_model_does_not_depend_on_the_others():
    images = [PICTURE.convert("L"), PICTURE, COLOUR[..., 0], "not an image"]
    alone, _, _ = evaluated([(PICTURE, 0)] * 4, model_shape=(4, 4, 3))
    grey = np.repeat(np.asarray(images[0])[..., None], 3, axis=2)
    one = np.repeat(COLOUR[..., :1], 3, axis=2)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        bad = BadExamples(skip=True)
        items = [(images[at], 0) for at in order]
        found, _, weights = evaluated(items, bad, model_shape=(4, 4, 3))
        wanted = [grey, alone[0], one, np.zeros_like(grey)]
        np.testing.assert_array_equal(found, [wanted[at] for at in order])
        assert weights.tolist() == [float(at != 3) for at in order]


def test_images_that_become_grey_are_told_once(logged):
    grey = PICTURE.convert("L")
    evaluated([(grey, 0)] * 4)
    assert not logged
    evaluated([(grey, 0), (PICTURE, 0)] * 2)
    (line,) = logged
    assert line.startswith("images of data become grey, such as that at index ")


def test_the_first_usable_image_decides_the_shape():
    bad = BadExamples(skip=True)
    _, _, weights = evaluated(Source(8, bad=[0, 1]), bad)
    assert weights.tolist() == [0.0, 0.0] + [1.0] * 6
    with pytest.raises(UserError, match="index 0 of data cannot be used: KeyError"):
        evaluated(Source(8, bad=[0]))
    with pytest.raises(UserError, match="index 0 of data cannot be used: KeyError"):
        loaded(Source(8, bad=range(8)))


def jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4] = 255  # The upper half is white.
    Image.fromarray(picture).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def test_encoded_images_are_decoded_upright():
    items = [(jpeg(1), 0), (jpeg(3), 0)] * 2
    images, _, _ = evaluated(items, image_size=8)
    assert images[0, :4].mean() > 200 > images[0, 4:].mean()
    assert images[1, :4].mean() < 50 < images[1, 4:].mean()


def test_encoded_images_need_a_size():
    with pytest.raises(UserError, match=r"index 0 of data.*give image_size="):
        loaded([(jpeg(1), 0)])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (iter([]), "data has the type list_iterator"),
        ([], "data has no examples"),
        ([1, 2], "index 0 of data cannot be used: it has the type int"),
        (tf.data.Dataset.range(3), "has the type _RangeDataset"),
    ],
)
def test_other_objects_are_refused(data, message):
    with pytest.raises(UserError, match=message):
        loaded(data)


def test_the_digest_samples_the_items():
    assert loaded(Source(100)).digest == loaded(Source(100)).digest
    assert loaded(Source(100)).digest != loaded(Source(100, seed=1)).digest


def test_ctrl_c_ends_the_reading_of_a_source():
    """The call does not take it as an unusable item, whose label the digest would keep."""

    class Interrupted(Source):
        def __getitem__(self, index):
            if len(self.read) == 7:
                raise KeyboardInterrupt
            return super().__getitem__(index)

    with pytest.raises(KeyboardInterrupt):
        loaded(Interrupted(20))


def test_images_that_vary_are_said_and_only_labels_count(logged):
    random = np.random.default_rng(0)

    class Varying(Source):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image + random.integers(0, 9, image.shape, np.uint8), label

    assert loaded(Varying(20)).digest == loaded(Varying(20)).digest
    assert "data returns another image each time" in logged[0]


def test_random_flips_are_noticed(logged):
    """A flip leaves half of the images as they were, so one image alone would not show it."""
    for seed in range(8):
        random = np.random.default_rng(seed)

        class Flipped(Source):
            def __getitem__(self, index, random=random):
                image, label = super().__getitem__(index)
                return (image[:, ::-1] if random.random() < 0.5 else image), label

        loaded(Flipped(40))
    assert len(logged) == 8


def test_the_digest_of_a_source_stays():
    """A run that an older version began must know its data."""
    assert loaded(Source(100)).digest == "91755f38e6c3159d83b09a777cf63e4a"
