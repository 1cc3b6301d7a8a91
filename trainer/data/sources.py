"""A split to train or evaluate on, by name: in memory where it fits, else read as it is needed.

Either way an index names the same example on every machine, which is part of the order contract.
"""

import dataclasses
import shlex
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from trainer.config.flags import Config
from trainer.data import image_folder, image_folder_source, pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import refuse_unknown, split_summary
from trainer.data.decode import MAX_PIXELS
from trainer.data.in_memory import InMemoryDataset, aligned_empty, pixel_statistics
from trainer.data.indexed import IndexedDataset
from trainer.data.tfds import records
from trainer.data.tfds.prepare import find_builder, prepare
from trainer.data.tfds.sizes import count_examples
from trainer.data.tfds.splits import count_split
from trainer.errors import UserError
from trainer.system import memory

_AT_ONCE = 250
# Of more bytes, means and deviations are those of so many examples, evenly spaced: reading
# all would take minutes. It depends on the set alone, and not on what fits into a machine's memory.
_STATISTICS_BYTES, _STATISTICS_EXAMPLES = 2**30, 1000


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
) -> InMemoryDataset | IndexedDataset:
    """A split of a TFDS image-classification set, prepared if need be, or of a folder of images.

    Args:
        dataset: a TFDS name, with configuration and version if need be, or image_folder:PATH.
        split: TFDS's split syntax: `train`, `train[:90%]`, `train+test`.
        data_dir: where prepared sets are; None: TFDS's own default.
        image_size: side of the square, in pixels, to which every image is resized; None: the
            dataset's own size.
        augment: a set that `imagenet` crops stays encoded.
        class_names: the run's class names: each label becomes the place of its class's name in
            this list. None: the split's own classes.
        max_pixels: an encoded image of more pixels is not decoded.
        bad: told of what cannot be decoded; where it may be left out, the set stays encoded.

    Raises:
        UserError: no such dataset or split, a class that is not in `class_names`, no 8-bit images
            with one label each, images of varying shape and no `image_size`, too big for memory
            without an index, or damaged files.
    """
    bad = bad or BadExamples(skip=False)
    name = f"{dataset} {split}"
    # Why it is read as it is needed; empty where it may be in memory.
    streamed = "--augment=imagenet crops before it decodes" if augment == "imagenet" else ""
    if bad.skip:
        streamed = "--skip_bad_examples takes others in their place"
    if dataset.startswith(image_folder.PREFIX):
        if image_size is None:
            raise UserError(f"the images of {dataset} may differ in size: give --image_size=n.")
        source = image_folder_source.load(
            dataset, split, class_names, image_size, max_pixels, bad.skip
        )
        in_memory = not streamed and _fits(source.examples, source.image_shape)
        return _decoded(source, augment, bad) if in_memory else source

    image, _ = records.supervised_features(find_builder(dataset, data_dir), dataset)
    height, width, channels = image.shape
    if image_size is not None:
        height = width = image_size
    elif height is None or width is None:
        raise UserError(f"{dataset}'s images differ in size: give --image_size=n to resize them")
    shape = height, width, channels
    expected = count_examples(dataset, split, data_dir) or 0
    # Photographs are too large for memory, or will be cropped.
    with_index = streamed or None in image.shape or not _fits(expected, shape)
    builder = prepare(dataset, data_dir, records.ARRAY_RECORD if with_index else records.TFRECORD)
    examples = count_split(builder.info.splits, split, dataset)
    if not streamed and not _fits(examples, shape):
        size = examples * int(np.prod(shape)) / 1e9
        streamed = f"its {examples:,} images take {size:,.1f} GB, more than half of the memory"
    _, label = records.supervised_features(builder, dataset)
    own_names = records.label_names(label, dataset)
    names = own_names if class_names is None else tuple(class_names)
    refuse_unknown(own_names, names, dataset, bad.skip)
    formats = records.formats(builder)
    if records.TFRECORD in formats and not streamed:
        found = records.in_memory(builder, split, image_size, names, name)
        counts = np.bincount(found.labels, minlength=len(names)).tolist()
        return dataclasses.replace(
            found, summary=split_summary(split, found.examples, names, counts)
        )
    if records.ARRAY_RECORD not in formats:
        raise _needs_index(builder, dataset, data_dir, streamed or "it is not TFRecord either")
    source = records.indexed(builder, split, shape, names, name)
    summary = split_summary(split, source.examples, names)
    source = dataclasses.replace(source, summary=summary, max_pixels=max_pixels)
    return source if streamed else _decoded(source, augment, bad)


def class_names(dataset: str, split: str, data_dir: str | None) -> tuple[str, ...]:
    """The names of the classes that a split has, by label, without its examples being read.

    Raises:
        UserError: no such dataset or split.
    """
    if dataset.startswith(image_folder.PREFIX):
        return tuple(image_folder.classes(dataset.removeprefix(image_folder.PREFIX), split))
    _, label = records.supervised_features(find_builder(dataset, data_dir), dataset)
    return records.label_names(label, dataset)


def evaluation_split(config: Config) -> str:
    """The split that is evaluated on: the user's, or the usual one."""
    if config.eval_split is not None:
        return config.eval_split
    if config.dataset.startswith(image_folder.PREFIX):
        return image_folder.evaluation_split(config.dataset.removeprefix(image_folder.PREFIX))
    return "test"


def image_statistics(
    source: InMemoryDataset | IndexedDataset, augment: str, bad: BadExamples
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, as `pixel_statistics`, of images as they are
    evaluated: all, or of a large set a thousand."""
    large = source.examples * int(np.prod(source.image_shape)) > _STATISTICS_BYTES
    step = -(-source.examples // _STATISTICS_EXAMPLES) if large else 1
    if isinstance(source, InMemoryDataset):
        return pixel_statistics(source.images[::step])
    some = dataclasses.replace(
        source,
        examples=-(-source.examples // step),
        fetch=lambda indices: source.fetch(indices * step),
        describe=lambda index: source.describe(index * step),
    )
    return pixel_statistics(_decoded(some, augment, bad).images)


def _decoded(source: IndexedDataset, augment: str, bad: BadExamples) -> InMemoryDataset:
    """All of an encoded set in memory, but for what cannot be decoded."""
    images = aligned_empty((source.examples, *source.image_shape))
    labels = np.empty(source.examples, np.int64)
    batches = pipeline.evaluation(source, batch_size=_AT_ONCE, shards=1, augment=augment, bad=bad)
    count = 0
    with bad.explained():
        for some_images, some_labels, weights in batches.as_numpy_iterator():
            good = weights > 0
            end = count + int(np.count_nonzero(good))
            images[count:end], labels[count:end] = some_images[good], some_labels[good]
            count = end
        if not count:
            bad.refuse(f"{source.name}: none of {source.examples:,} examples can be used.")
    return InMemoryDataset(
        images[:count], labels[:count], source.class_names, source.name, source.summary
    )


def _fits(examples: int, shape: tuple[int, ...]) -> bool:
    """Whether decoded images take at most half of this machine's memory, or its container's."""
    return examples * int(np.prod(shape)) <= memory.ram_limit() // 2


def _needs_index(
    builder: tfds.core.DatasetBuilder, dataset: str, data_dir: str | None, reason: str
) -> UserError:
    where = f" --data_dir={shlex.quote(data_dir)}" if data_dir else ""
    formats = " and ".join(sorted(each.value for each in records.formats(builder)))
    return UserError(
        f"{dataset} is prepared as {formats}, which has no index, and {reason}. Convert it, once:\n"
        f"python -m trainer convert --dataset={dataset}{where}"
    )
