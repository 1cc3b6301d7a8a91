import dataclasses

import numpy as np
import pytest
from PIL import Image

from tests.support.configs import parsed
from trainer.data.bad_examples import BadExamples
from trainer.data.in_memory import InMemoryDataset
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir import training_data
from trainer.training import setup

IMAGES = InMemoryDataset(
    np.full((6, 4, 4, 2), 7, np.uint8), np.arange(6) % 3, ("a", "b", "c"), "sevens"
)
NONE = BadExamples(skip=False)


def test_what_a_run_knows_of_its_training_data(tmp_path):
    config = parsed()
    data = setup.training_data_of(config, tmp_path, NONE, IMAGES)
    assert data == training_data.TrainingData(
        *(6, (4, 4, 2), 3, (7.0, 7.0), (1.0, 1.0), ("a", "b", "c"))
    )
    # What it has kept is what it goes on with.
    kept = dataclasses.replace(data, mean=(5.0, 5.0))
    training_data.keep(tmp_path, kept)
    assert setup.training_data_of(config, tmp_path, NONE, IMAGES) == kept
    assert setup.training_data_of(config, tmp_path, NONE) == kept


@pytest.mark.parametrize(
    "other", [{"examples": 5}, {"image_shape": (4, 5, 2)}, {"classes": 4}], ids=str
)
def test_a_training_set_that_has_changed(tmp_path, other):
    data = setup.training_data_of(parsed(), tmp_path, NONE, IMAGES)
    training_data.keep(tmp_path, dataclasses.replace(data, class_names=None, **other))
    with pytest.raises(UserError, match=r"'train' is not what this run began with: it had") as e:
        setup.training_data_of(parsed(), tmp_path, NONE, IMAGES)
    assert "and has 6 of (4, 4, 2) in 3." in str(e.value)


@pytest.mark.parametrize("model", ["wide_resnet_10", ":model", "python:model"])
def test_a_model_that_does_not_exist_is_refused_before_the_data_are_read(model):
    config = parsed(f"--model={model}", "--dataset=image_folder:/nothing")
    with pytest.raises(UserError, match=f"--model={model}"):
        setup.load_splits(config, None, NONE, ProcessGroup())


@pytest.mark.parametrize(
    ("flags", "warned"), [([], True), (["--loss=sigmoid"], False), (["--num_classes=2"], False)]
)
def test_one_class_is_said_to_teach_nothing(tmp_path, logged, flags, warned):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (4, 4), "red").save(tmp_path / split / "cat" / "1.png")
    config = parsed(f"--dataset=image_folder:{tmp_path}", "--image_size=4", *flags)
    setup.load_splits(config, None, NONE, ProcessGroup())
    assert any("nothing is learned" in line for line in logged) == warned


def test_a_class_that_was_renamed_is_named(tmp_path):
    data = setup.training_data_of(parsed(), tmp_path, NONE, IMAGES)
    training_data.keep(tmp_path, dataclasses.replace(data, class_names=("a", "cat", "c")))
    with pytest.raises(UserError, match=r"other classes .*: missing cat; new b\.\nRename"):
        setup.training_data_of(parsed(), tmp_path, NONE, IMAGES)


def test_a_run_from_before_takes_the_names_of_its_data_and_says_so(tmp_path, logged):
    data = setup.training_data_of(parsed(), tmp_path, NONE, IMAGES)
    training_data.keep(tmp_path, dataclasses.replace(data, class_names=None))
    assert setup.training_data_of(parsed(), tmp_path, NONE, IMAGES) == data
    assert logged == ["this run kept no class names, and takes those of its data: a, b, c"]


@pytest.mark.usefixtures("fashion_mnist")
def test_a_model_from_before_has_the_class_names_of_its_dataset(logged):
    assert setup.class_names(parsed(), ["a", "b"], 2) == ["a", "b"]
    assert logged == []
    names = setup.class_names(parsed(), None, None)
    assert (len(names), names[1]) == (10, "Trouser")
    assert logged[0].startswith(
        "the model keeps no class names, and takes those of fashion_mnist's"
    )


@pytest.mark.usefixtures("fashion_mnist")
def test_a_model_from_before_does_not_take_the_names_of_fewer_classes(logged):
    with pytest.raises(UserError, match=r"learned 11 classes, but fashion_mnist's .* has 10: "):
        setup.class_names(parsed(), None, 11)
    assert logged == []


@pytest.mark.parametrize(
    ("shape", "flags", "remedy"),
    [
        ((4, 4, 3), [], "convert one of the two to grey or to RGB"),
        ((4, 4, 3), ["--image_size=4"], "convert one of the two to grey or to RGB"),
        ((5, 4, 2), [], "give both the same shape, or --image_size"),
    ],
)
def test_evaluation_images_of_another_shape_are_refused_with_a_remedy(shape, flags, remedy):
    other = dataclasses.replace(IMAGES, images=np.zeros((6, *shape), np.uint8))
    with pytest.raises(UserError, match=rf"{remedy}\.$"):
        setup._check_shapes(parsed(*flags), IMAGES, other)
    setup._check_shapes(parsed("--image_size=4"), IMAGES, IMAGES)
