"""Loads a split by name: into memory, or as a dataset that is read from disk by index.

An index means the same example on every machine. So a run has the same order of examples on all
machines.
"""

import dataclasses
import shlex
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from trainer.config import augment_list
from trainer.config.flags import Config
from trainer.data import image_folder_source, image_listing, pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.bucket import open_folders
from trainer.data.class_names import refuse_unknown, split_summary
from trainer.data.decode import MAX_PIXELS
from trainer.data.in_memory import InMemoryDataset, aligned_empty, pixel_statistics
from trainer.data.indexed import IndexedDataset
from trainer.data.python import dataset as python_dataset
from trainer.data.python import split as python_split
from trainer.data.tfds import records, set_files, tfrecords
from trainer.data.tfds.prepare import find_builder, prepare
from trainer.data.tfds.sizes import count_examples
from trainer.data.tfds.splits import count_split
from trainer.errors import UserError
from trainer.system import memory
from trainer.system.tensorflow_errors import translate

# If a set's decoded images take over 1 GiB, the pixel statistics come from at most 1,000 evenly
# spaced examples, because reading all would take minutes. The limits are equal on all machines, so
# that the statistics are equal too.
_STATISTICS_BYTES, _STATISTICS_EXAMPLES = 2**30, 1000


@open_folders.showing_urls()
def load(
    dataset: str,
    split: str,
    data_dir: str | None,
    image_size: int | None,
    *,
    augment: str = "none",
    class_names: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    bad: BadExamples | None = None,
    several_sizes: bool = False,
) -> InMemoryDataset | IndexedDataset:
    """Loads a split of a TFDS set, an image folder or a CSV file; prepares a TFDS set if needed.

    Args:
        dataset: image_folder:PATH, image_csv:PATH, python (the examples that a Python program has
            given), or a TFDS name, optionally with configuration and version.
        split: TFDS's split syntax: `train`, `train[:90%]`, `train+test`.
        data_dir: folder of prepared sets; None: TFDS's default.
        image_size: side, in pixels, of the square to which images are resized; None: not resized.
        augment: the run's --augment; with `imagenet`, the set stays encoded.
        class_names: the run's class names; a label is an index into them. None: the class names of
            the split.
        max_pixels: an encoded image with more pixels is not decoded.
        bad: records the bad examples; if `bad.skip` is True, the set stays encoded.
        several_sizes: whether training resizes the images to several sizes. If so, a TFDS set with
            images of one size keeps that size, and other images stay encoded.

    Raises:
        UserError: if the dataset, the split or a class is unknown; if images are not 8-bit, or have
            no label; if images differ in size, and `image_size` is None; if the examples must be
            read by index, and the set's files have no index; if files are damaged.
    """
    bad, name = bad or BadExamples(skip=False), f"{dataset} {split}"
    if dataset == python_dataset.DATASET:
        return python_split.load(
            split,
            image_size,
            augment=augment,
            class_names=class_names,
            max_pixels=max_pixels,
            skip_bad=bad.skip,
            several_sizes=several_sizes,
        )
    streamed = _reason_to_stream(augment, bad)
    if several_sizes and _has_one_size(dataset, data_dir):
        image_size = None
    elif several_sizes:
        streamed = streamed or "--image_sizes changes the size of the decoded images"
    if image_listing.is_listed(dataset):
        size, _, _ = image_shape(dataset, data_dir, image_size)
        source = image_folder_source.load(dataset, split, class_names, size, max_pixels, bad.skip)
        in_memory = not streamed and _fits(source.examples, source.image_shape)
        return _decoded(source, augment, bad) if in_memory else source

    builder, shape, streamed = _prepared(dataset, split, data_dir, image_size, streamed)
    _, label = records.supervised_features(builder, dataset)
    own_names = records.label_names(label, dataset)
    names = own_names if class_names is None else tuple(class_names)
    refuse_unknown(own_names, names, dataset, bad.skip)
    formats = set_files.formats(builder)
    if set_files.TFRECORD in formats and not streamed:
        loaded = tfrecords.load(builder, split, image_size, names, name, max_pixels)
        counts = np.bincount(loaded.labels, minlength=len(names)).tolist()
        summary = split_summary(split, loaded.examples, names, counts)
        return dataclasses.replace(loaded, summary=summary)
    if set_files.ARRAY_RECORD not in formats:
        raise _needs_index(builder, dataset, data_dir, streamed or "it is not TFRecord either")
    source = records.indexed(builder, split, shape, names, name, whole=not streamed)
    summary = split_summary(split, source.examples, names)
    source = dataclasses.replace(source, summary=summary, max_pixels=max_pixels)
    return source if streamed else _decoded(source, augment, bad)


def _reason_to_stream(augment: str, bad: BadExamples) -> str:
    """Returns the reason why examples must stay on disk, or "" if they may be read into memory."""
    if bad.skip:
        return "--skip_bad_examples replaces single examples"
    resized_crop = augment_list.parse(augment).resized_crop
    return f"--augment={augment} crops before it decodes" if resized_crop else ""


def _has_one_size(dataset: str, data_dir: str | None) -> bool:
    """Returns whether all images are known to have one size; False for a folder or a CSV file."""
    if image_listing.is_listed(dataset):
        return False
    image, _ = records.supervised_features(find_builder(dataset, data_dir), dataset)
    return None not in image.shape


def _prepared(
    dataset: str, split: str, data_dir: str | None, image_size: int | None, streamed: str
) -> tuple[tfds.core.DatasetBuilder, tuple[int, int, int], str]:
    """Prepares a TFDS set if needed; returns its builder, its images' shape, and a reason or "".

    The reason says why the examples must stay on disk; "" means that they may be read into memory.
    `streamed` is such a reason, or "" if none is known yet.
    """
    shape, fixed = _image_shape(dataset, data_dir, image_size)
    expected = count_examples(dataset, split, data_dir) or 0
    # A new set gets an index if its examples stay on disk, or if its images vary in size.
    with_index = streamed or not fixed or not _fits(expected, shape)
    builder = prepare(
        dataset, data_dir, set_files.ARRAY_RECORD if with_index else set_files.TFRECORD
    )
    examples = count_split(builder.info.splits, split, dataset)
    if not streamed and not _fits(examples, shape):
        size = examples * int(np.prod(shape)) / 1e9
        streamed = f"its {examples:,} images take {size:,.1f} GB, more than half of the memory"
    return builder, shape, streamed


def _image_shape(
    dataset: str, data_dir: str | None, image_size: int | None
) -> tuple[tuple[int, int, int], bool]:
    """Returns the image shape that the model gets, and whether all images have the same shape."""
    image, _ = records.supervised_features(find_builder(dataset, data_dir), dataset)
    height, width, channels = image.shape
    if image_size is not None:
        height = width = image_size
    elif height is None or width is None:
        raise UserError(f"{dataset}'s images differ in size: give --image_size=N to resize them")
    return (height, width, channels), None not in image.shape


def image_shape(dataset: str, data_dir: str | None, image_size: int | None) -> tuple[int, int, int]:
    """Returns the shape of the images that the model gets, without reading them.

    Raises:
        UserError: if the dataset is unknown, or images may vary in size and `image_size` is None.
    """
    if not image_listing.is_listed(dataset):
        return _image_shape(dataset, data_dir, image_size)[0]
    if image_size is None:
        raise UserError(f"the images of {dataset} may differ in size: give --image_size=N.")
    return image_size, image_size, image_folder_source.CHANNELS


def class_names(dataset: str, split: str, data_dir: str | None) -> tuple[str, ...]:
    """Returns the names of a split's classes, by label, without reading examples.

    Raises:
        UserError: if the dataset or split does not exist.
    """
    if image_listing.is_listed(dataset):
        return tuple(image_listing.classes(dataset, split))
    _, label = records.supervised_features(find_builder(dataset, data_dir), dataset)
    return records.label_names(label, dataset)


def evaluation_split(config: Config) -> str:
    """Returns --eval_split, or a default if the flag is not set.

    The default of a TFDS set is test. The default of an image folder or a CSV file is the first of
    val, validation and test that exists.
    """
    if config.eval_split is not None:
        return config.eval_split
    if image_listing.is_listed(config.dataset):
        return image_listing.evaluation_split(config.dataset)
    return "test"


def labels(source: InMemoryDataset | IndexedDataset) -> np.ndarray:
    """Returns each example's label, int64 [N], −1 if unknown; may read all examples once."""
    if isinstance(source, InMemoryDataset):
        return source.labels
    assert source.labels is not None
    return source.labels()


def image_statistics(
    source: InMemoryDataset | IndexedDataset, augment: str, bad: BadExamples
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the `pixel_statistics` of all images, or of at most 1,000 images of a large set.

    Encoded images are decoded as for evaluation.
    """
    large = source.examples * int(np.prod(source.image_shape)) > _STATISTICS_BYTES
    step = -(-source.examples // _STATISTICS_EXAMPLES) if large else 1
    if isinstance(source, InMemoryDataset):
        return pixel_statistics(source.images[::step])
    sample = source.at(np.arange(0, source.examples, step)) if large else source
    return pixel_statistics(_decoded(sample, augment, bad).images)


def _decoded(source: IndexedDataset, augment: str, bad: BadExamples) -> InMemoryDataset:
    """Decodes a whole set into memory, and leaves out examples that cannot be decoded."""
    images = aligned_empty((source.examples, *source.image_shape))
    labels = np.empty(source.examples, np.int64)
    batches = pipeline.evaluation(source, batch_size=250, shards=1, augment=augment, bad=bad)
    count = 0
    with translate(bad.refusal):
        for batch_images, batch_labels, weights in batches.as_numpy_iterator():
            good = weights > 0
            end = count + int(np.count_nonzero(good))
            images[count:end], labels[count:end] = batch_images[good], batch_labels[good]
            count = end
        if not count:
            bad.refuse(f"{source.name}: none of {source.examples:,} examples can be used.")
    # If examples are left out, the indices in memory are not the indices of the files.
    path = source.path if count == source.examples else None
    return InMemoryDataset(
        images[:count], labels[:count], source.class_names, source.name, source.summary, path
    )


def _fits(examples: int, shape: tuple[int, ...]) -> bool:
    """Returns whether decoded images fit in half of the memory of this machine or container."""
    return examples * int(np.prod(shape)) <= memory.ram_limit() // 2


def _needs_index(
    builder: tfds.core.DatasetBuilder, dataset: str, data_dir: str | None, reason: str
) -> UserError:
    found = set_files.formats(builder)
    formats = " and ".join(sorted(form.value for form in found))
    folder = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    if set_files.TFRECORD not in found:
        remedy = f"Prepare it in another folder, once:\n{set_files.build_command(dataset)}"
    elif open_folders.is_remote(data_dir):
        remedy = (
            "Copy it to a local folder, convert it there, once, and copy it back:\n"
            f"python -m trainer convert --dataset={dataset} --data_dir=FOLDER"
        )
    else:
        remedy = f"Convert it, once:\npython -m trainer convert --dataset={dataset}{folder}"
    return UserError(
        f"{dataset} is prepared as {formats}, which has no index, and {reason}. {remedy}"
    )
