"""Declares the flags that decide what a run learns from, and with which model."""

import dataclasses
import re

from trainer.config import augment_list, image_sizes, local_path
from trainer.config.declaration import (
    EPOCHS,
    EXAMPLES,
    FRACTION,
    MODEL,
    POSITIVE,
    TRAINING,
    Group,
    Scope,
    must_be,
)

# Values of --precision.
AUTO, FLOAT32, BFLOAT16 = "auto", "float32", "bfloat16"

_data = Group("Data", Scope.LEARNED, MODEL)
_model = Group("Model", Scope.LEARNED, MODEL)
# The shares of two mixed images are drawn from Beta(α, α). At α = 1e6, all shares are within 0.002
# of ½. At α = 1e300, the rounding errors of float64 would make all shares 0 or 1.
_ALPHA = must_be("above 0 and at most 1e6", lambda value: 0 < value <= 1e6)


def _dataset_problem(name: str) -> str:
    kind, colon, path = name.partition(":")
    if colon and kind == "image_folder":
        return local_path.data_problem(path)
    is_path = colon and kind == "image_csv"
    return local_path.problem(path) if is_path else local_path.empty(name)


def _pattern_problem(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"is not a regular expression: {error}"
    return local_path.empty(pattern)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFlags:
    """Flags of the data and the model; an unset flag without a default is None."""

    dataset: str = _data(
        "fashion_mnist",
        "Name of a TFDS image dataset; image_folder:PATH for images like PATH/train/cat/1.jpg or "
        "PATH/cat/1.jpg, where PATH may be in a bucket; or image_csv:FILE for a CSV file of paths "
        "and labels.",
        problem=_dataset_problem,
        commands=(*MODEL, "convert"),
    )
    data_dir: str | None = _data(
        None,
        "Folder of TFDS datasets, which may be in a bucket (unset: TFDS's default).",
        problem=local_path.remote_problem,
        scope=Scope.FREE,
        commands=(*MODEL, "convert"),
    )
    train_split: str = _data(
        "train",
        "Training split, in TFDS's syntax, such as train[:90%].",
        problem=local_path.empty,
    )
    eval_split: str | None = _data(
        None,
        "Evaluation split, in TFDS's syntax (unset: test; for image_folder and "
        "image_csv, the first of val, validation and test that exists).",
        problem=local_path.empty,
        commands=EXAMPLES,
    )
    train_examples: int | None = _data(
        None,
        "Number N of training examples (unset: counted). `plan` needs it if the dataset is not on "
        "this machine.",
        problem=POSITIVE,
        scope=Scope.FREE,
        commands=TRAINING,
    )
    augment: str = _data(
        "none",
        "Augmentation of training images: none, or a list, as in crop,flip,randaugment,erasing. "
        "crop: shifts images by up to 4 pixels; flip: mirrors half of the images; randaugment: "
        "applies operations drawn from 14; trivialaugment: applies one of the 14, with a random "
        "strength; erasing: replaces a rectangle of some images with noise; mixup, cutmix: mix "
        "pairs of images in a ghost batch. A list may also have one preset. medium: the same as "
        "crop,flip; strong: medium, zoom by 0.75 to 1.25, rotation by up to 10 degrees, channel "
        "shift by up to 50 grey levels, and erasing in half of the images; imagenet: a random crop "
        "of 8% to 100% of the image, resized, and flips; evaluation takes the centre crop.",
        problem=augment_list.problem,
    )
    randaugment_layers: int = _data(
        augment_list.Augmentation.layers,
        "Number of operations that randaugment applies to an image, from 1 to 8.",
        problem=must_be("from 1 to 8", lambda value: 1 <= value <= 8),
        commands=TRAINING,
    )
    randaugment_magnitude: float = _data(
        augment_list.Augmentation.magnitude,
        "Strength of randaugment's operations, from 0 to 10.",
        problem=must_be("from 0 to 10", lambda value: 0 <= value <= 10),
        commands=TRAINING,
    )
    erasing_probability: float = _data(
        augment_list.Augmentation.erasing_probability,
        "Share of the images that `erasing` erases, as a fraction.",
        problem=must_be("above 0 and at most 1", lambda value: 0 < value <= 1),
        commands=TRAINING,
    )
    erasing_area: str = _data(
        "0.02,0.4",
        "Smallest and largest area of `erasing`'s rectangle, as fractions of the image's area.",
        problem=augment_list.area_problem,
        commands=TRAINING,
    )
    mixup_alpha: float = _data(
        0.2,
        "Parameter alpha of mixup: the share of an image in the mixture is drawn from "
        "Beta(alpha, alpha).",
        problem=_ALPHA,
        commands=TRAINING,
    )
    cutmix_alpha: float = _data(
        1.0,
        "Parameter alpha of cutmix: the share of its area that an image keeps is drawn from "
        "Beta(alpha, alpha).",
        problem=_ALPHA,
        commands=TRAINING,
    )
    skip_bad_examples: bool = _data(
        False,
        "Skip images that cannot be read or decoded, and report their number and names (TFDS: "
        "ArrayRecord only).",
        scope=Scope.FREE,
        commands=EXAMPLES,
    )
    class_weights: str | None = _data(
        None,
        "Weights of the classes in the training loss: balanced (1 / number of the class's "
        "examples), or the path of a .json or .csv file with a weight for each class name. The "
        "weights are scaled to a mean of 1 over the training examples (unset: all 1).",
        problem=local_path.problem,
        commands=TRAINING,
    )
    sampling: str = _data(
        "shuffled",
        "Order of training examples. shuffled: each example once per epoch; balanced: each class "
        "equally often.",
        choices=("shuffled", "balanced"),
        commands=TRAINING,
    )
    max_image_pixels: int = _data(
        178_956_970,
        "Largest width times height of an image, in pixels; a larger image is an error.",
        problem=must_be("1 or above", lambda value: value >= 1),
        scope=Scope.FREE,
    )

    model: str = _model(
        "wide_resnet_10_1",
        "Model: wide_resnet_<depth>_<width>, vit_<ti|s|b>_<patch>, resnet_50, vgg_16, plain_9, "
        "inception_resnet_v2, a keras.applications name, or module:function for a function that "
        "returns a Keras model.",
        problem=local_path.empty,
    )
    drop_path: float = _model(
        0.0,
        "Stochastic depth: probability that the last block of resnet_50 or vit skips its residual "
        "branch for a training example. The probability rises linearly over the blocks, from 0 at "
        "the first.",
        problem=FRACTION,
        commands=TRAINING,
    )
    image_size: int | None = _model(
        None, "Side length of the images, in pixels (unset: the dataset's).", problem=POSITIVE
    )
    image_sizes: tuple[str, ...] = _model(
        (),
        "Side lengths of the training images, in pixels, if they change during the run: a list of "
        "SIZE@START, where START is an epoch or a percentage of the run, as in "
        f"{image_sizes.EXAMPLE} (unset: always --image_size).",
        problem=image_sizes.problem,
    )
    eval_image_size: int | None = _model(
        None,
        "Side length of the images in evaluations, exports and predictions, in pixels (unset: "
        "--image_size, or else the last of --image_sizes).",
        problem=POSITIVE,
    )
    num_classes: int | None = _model(
        None, "Number of the model's classes (unset: the dataset's).", problem=POSITIVE
    )
    init_from: str | None = _model(
        None,
        "Pretrained weights: a run directory (RUN@best or RUN@UPDATE for another checkpoint than "
        "the newest), an export, a .keras or .weights.h5 file, or imagenet for the weights of "
        "keras.applications (unset: random weights). The weights are read only when the run "
        "begins, not when it resumes.",
        problem=local_path.problem,
        commands=TRAINING,
    )
    freeze: str | None = _model(
        None,
        "Regular expression for the layers that do not train: a layer is frozen if the start of "
        "its path matches. For example, '(?!logits)' freezes all layers except logits (unset: all "
        "layers train).",
        problem=_pattern_problem,
        commands=TRAINING,
    )
    unfreeze_epochs: float | None = _model(
        None,
        "Epoch from which the layers of --freeze train too (unset: they never train).",
        problem=EPOCHS,
        commands=TRAINING,
    )
    layer_decay: float = _model(
        1.0,
        "Ratio of the learning rate of a block of layers to the rate of the next block. The last "
        "layer has the full learning rate.",
        problem=must_be("above 0 and at most 1", lambda value: 0 < value <= 1),
        commands=TRAINING,
    )
    ghost_batch_size: int = _model(
        32,
        "Ghost batch size G, the number of examples that share batch-norm statistics.",
        problem=POSITIVE,
        commands=TRAINING,
    )
    ghost_decay: float = _model(
        0.99,
        "Decay of batch norm's moving statistics, per ghost batch.",
        problem=must_be("above 0 and below 1", lambda value: 0 < value < 1),
        commands=TRAINING,
    )
    precision: str = _model(
        AUTO,
        "Data type of the layers' computations; parameters, normalisation and loss are always "
        "float32. auto: a resumed run keeps its precision; a new run takes float32 with "
        "--deterministic, and otherwise bfloat16 on TPUs, on GPUs from compute capability 8 and on "
        "CPUs with amx_bf16 or avx512_bf16, and float32 elsewhere.",
        choices=(AUTO, FLOAT32, BFLOAT16),
    )

    @property
    def model_image_size(self) -> int | None:
        """Side length of the images that a trained model takes; None means the dataset's side."""
        last = image_sizes.sizes(self.image_sizes)[-1:]
        return next((size for size in (self.eval_image_size, self.image_size, *last) if size), None)

    @property
    def loaded_image_size(self) -> int | None:
        """Largest side of the training images, used to load them; None means the dataset's side."""
        return max(image_sizes.sizes(self.image_sizes), default=self.image_size)

    @property
    def augmentation(self) -> augment_list.Augmentation:
        """Augmentation that --augment and the flags of its items describe."""
        return augment_list.parse(
            self.augment,
            layers=self.randaugment_layers,
            magnitude=self.randaugment_magnitude,
            erasing_probability=self.erasing_probability,
            erasing_area=augment_list.area(self.erasing_area),
        )
