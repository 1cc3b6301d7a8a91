"""trainer.train on examples that a Python program holds."""

import json

import pytest
from PIL import Image

import trainer
from tests.support.configs import done
from tests.support.squares import NAMES, Source, arrays
from trainer.api.examples import checked_names, names_of
from trainer.config.flags import Config

SQUARES = {
    "model": "tests.support.models:tiny",
    "epochs": 4,
    "initial_batch_size": 16,
    "max_batch_size": 32,
    "ghost_batch_size": 16,
    "micro_batch_size": 16,
    "anneal": "step",
    "anneal_epochs": ["50%"],
    "anneal_factor": 2,
    "anneal_with": "batch_size",
    "log_every_updates": 10,
    "precision": "float32",
}
ONE_SIZE = {"anneal": "constant", "anneal_epochs": None}  # Each size is a step to trace.
TRAINING, EVALUATION = arrays(320), arrays(64, seed=1)


def train(folder, data=TRAINING, evaluation_data=EVALUATION, **more):
    return trainer.train(folder, data=data, evaluation_data=evaluation_data, **SQUARES | more)


@pytest.fixture(scope="module")
def on_arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays") / "run"
    return folder, train(folder, class_names=NAMES)


def test_arrays_are_learned(on_arrays):
    folder, found = on_arrays
    assert found["top1"] > 0.5
    flags = (folder / "flags.txt").read_text()
    assert "--dataset=python\n" in flags
    assert "--train_split=data\n" in flags
    kept = json.loads((folder / "training_data.json").read_text())
    assert (kept["examples"], kept["class_names"]) == (320, NAMES)
    assert len(kept["digest"]) == 32


def test_a_source_of_the_same_examples_ends_with_the_same_parameters(tmp_path, on_arrays):
    source = Source(320)
    stopped = train(tmp_path / "run", source, Source(64, seed=1), stop_at_epoch=2)
    assert isinstance(stopped, trainer.Stopped)
    # A resumed run goes on in the same order.
    found = train(tmp_path / "run", source, Source(64, seed=1))
    assert found["parameters_sha256"] == on_arrays[1]["parameters_sha256"]
    assert found["resumes"] == 1


def test_other_data_are_refused_on_resume(tmp_path):
    train(tmp_path / "run", stop_at_epoch=0.2)
    images, labels = arrays(320)
    images[9, 0, 0, 0] ^= 1
    with pytest.raises(trainer.UserError, match="other images or labels"):
        train(tmp_path / "run", (images, labels))
    with pytest.raises(trainer.UserError, match=r"it had 320 examples .* and has 319"):
        train(tmp_path / "run", (images[1:], labels[1:]))
    with pytest.raises(trainer.UserError, match="has other classes"):
        train(tmp_path / "run", class_names=NAMES)


def test_a_finished_run_refuses_other_data_too(on_arrays, logged):
    folder, result = on_arrays
    assert train(folder, class_names=NAMES) == result
    images, labels = arrays(320)
    images[9, 0, 0, 0] ^= 1
    with pytest.raises(trainer.UserError, match="other images or labels"):
        train(folder, (images, labels), class_names=NAMES)
    assert sum("is finished" in line for line in logged) == 1


def test_a_fork_goes_on_with_the_same_data(tmp_path, on_arrays, capsys):
    parent, _ = on_arrays
    more = {"fork_from": f"{parent}@newest", "epochs": 6, "anneal": "constant"}
    data = {"data": TRAINING, "evaluation_data": EVALUATION}
    with pytest.raises(trainer.UserError, match="Give the classes their former names"):
        trainer.train(tmp_path / "unnamed", **data, **more)
    found = trainer.train(tmp_path / "run", class_names=NAMES, **data, **more)
    assert found["epochs"] >= 6
    assert "noise scale" in capsys.readouterr().out
    plan = trainer.plan(**more)
    assert plan["examples"] == 320
    assert plan["fork"]["position"] + 320 * 2 >= 6 * 320


def test_a_source_that_fails_ends_the_run_and_names_the_index(tmp_path):
    data = Source(320, bad=[77])
    with pytest.raises(trainer.UserError, match="index 77 of data cannot be used: KeyError"):
        train(tmp_path / "run", data)
    found = train(tmp_path / "other", data, skip_bad_examples=True, epochs=1, **ONE_SIZE)
    assert found["bad_examples"] == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"evaluation_data": None}, "has data= and not evaluation_data="),
        ({"data": None}, "has evaluation_data= and not data="),
        ({"dataset": "mnist"}, "has examples, so leave dataset= out"),
        ({"class_names": "abcd"}, "is not a list of names"),
        ({"class_names": NAMES[:2]}, "is not one of 2 classes"),
        ({"data": 3}, "data has the type int"),
    ],
)
def test_wrong_examples_are_named(tmp_path, more, message):
    with pytest.raises(trainer.UserError, match=message):
        train(tmp_path / "run", **more)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((TRAINING[0], [*map(int, TRAINING[1])]), "data is a tuple with arrays: give a pair"),
        ({"image": TRAINING[0], "label": TRAINING[1]}, "data is a dict with arrays: give a pair"),
        ([(Image.new("I;16", (12, 12)), 0)] * 32, "its image has the mode I;16, of more than 8"),
    ],
)
def test_what_looks_like_examples_is_refused_by_name(tmp_path, data, message):
    with pytest.raises(trainer.UserError, match=message):
        train(tmp_path / "run", data, class_names=NAMES)


def test_evaluation_images_of_another_shape_are_refused_before_training(tmp_path):
    images, labels = EVALUATION
    with pytest.raises(trainer.UserError, match="give both the same shape, or --image_size"):
        train(tmp_path / "run", evaluation_data=(images[:, :8], labels))


def test_class_names_are_distinct_text():
    assert checked_names(["a", "b"], TRAINING) == ("a", "b")
    for wrong in (["a", "a"], ["a", ""], [1, 2], []):
        with pytest.raises(trainer.UserError, match="class_names="):
            checked_names(wrong, TRAINING)


def test_class_names_without_examples_are_refused(tmp_path):
    more = {"class_names": NAMES, "dataset": "image_folder:missing"}
    for call in (
        lambda: trainer.train(tmp_path, **more),
        lambda: trainer.evaluate(tmp_path, **more),
    ):
        with pytest.raises(trainer.UserError, match="class_names= names the classes of data="):
            call()


def test_a_source_without_classes_needs_their_number(tmp_path):
    items = [(image, int(label)) for image, label in zip(*TRAINING, strict=True)]
    with pytest.raises(trainer.UserError, match="the classes of data are not known"):
        train(tmp_path / "run", items)
    assert names_of(Config(num_classes=4), None, items) == ("0", "1", "2", "3")


def test_the_command_line_refuses_these_examples_by_name(capsys, tmp_path, on_arrays):
    folder, _ = on_arrays
    status, _, error = done(capsys, "evaluate", f"--model_dir={folder}")
    assert status == 2
    assert "only a Python program has the examples of --dataset=python" in error
    for command in ("train", "convert"):
        more = [f"--model_dir={tmp_path}/new"] if command == "train" else []
        status, _, error = done(capsys, command, "--dataset=python", *more)
        assert (status, "only a Python program" in error) == (2, True)
    status, _, error = done(capsys, "plan", "--dataset=python")
    assert "pass --train_examples" in error


def test_the_command_line_exports_such_a_run(capsys, on_arrays):
    folder, _ = on_arrays
    status, printed, _ = done(capsys, "export", f"--model_dir={folder}")
    assert status == 0
    assert "classes.txt names the logits" in printed
    assert (folder / "export" / "classes.txt").read_text().split("\n")[:-1] == NAMES


def test_random_crops_take_arrays(tmp_path):
    found = train(tmp_path / "run", augment="imagenet", epochs=0.2, **ONE_SIZE)
    assert found["updates"] == 4
