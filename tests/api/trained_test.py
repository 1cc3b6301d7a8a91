"""trainer.evaluate, predict and load: the same numbers as the commands, for data of one's own."""

import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image

import trainer
from tests.api.examples_test import EVALUATION, ONE_SIZE, train
from tests.support.configs import done
from tests.support.squares import NAMES, Source, arrays
from trainer.api import devices
from trainer.buckets import url
from trainer.config.flags import Config
from trainer.run_dir import bucket_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    return folder, train(folder, class_names=NAMES)


def test_an_evaluation_is_that_of_the_run(trained):
    folder, result = trained
    found = trainer.evaluate(folder, data=EVALUATION)
    assert (found["top1"], found["loss"]) == (result["top1"], pytest.approx(result["loss"]))
    assert found["examples"] == 64
    again = trainer.evaluate(folder, data=Source(64, seed=1), per_class=True)
    assert again["top1"] == found["top1"]
    assert [each["name"] for each in again["classes"]] == NAMES


def test_an_evaluation_of_labels_that_the_run_lacks_is_refused(trained):
    images, labels = EVALUATION
    with pytest.raises(trainer.UserError, match=r"of evaluation_data, at index .*not one of 4"):
        trainer.evaluate(trained[0], data=(images, labels + 4))
    with pytest.raises(trainer.UserError, match="leave dataset= out"):
        trainer.evaluate(trained[0], data=EVALUATION, dataset="mnist")


def test_examples_that_are_missing_are_asked_for_by_their_name(trained):
    with pytest.raises(trainer.UserError, match=r"trainer.evaluate\(\.\.\., data=\.\.\.\)"):
        trainer.evaluate(trained[0])


def test_predictions_are_those_of_the_command(trained, tmp_path, capsys):
    folder, _ = trained
    images, _ = arrays(3, seed=2)
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    found = trainer.predict(folder, paths, top_k=2)
    assert [each["path"] for each in found] == list(map(str, paths))
    _, printed, _ = done(
        capsys,
        *("predict", f"--model_dir={folder}", "--top_k=2", "--format=json", *map(str, paths)),
    )
    assert found == [json.loads(line) for line in printed.splitlines()]
    # Arrays, Pillow images and encoded images have the same predictions.
    wanted = [each["probabilities"] for each in found]
    pictures = [Image.open(paths[0]), images[1], paths[2].read_bytes()]
    for own in (images, images[..., 0], iter(pictures)):
        same = trainer.predict(folder, own, top_k=2)
        assert [each["index"] for each in same] == [0, 1, 2]
        np.testing.assert_allclose([each["probabilities"] for each in same], wanted, rtol=1e-5)


def test_one_colour_image_is_not_taken_for_several_grey_ones(tmp_path):
    images = np.repeat(EVALUATION[0], 3, axis=3)
    data = (np.repeat(arrays(320)[0], 3, axis=3), arrays(320)[1])
    more = {"class_names": NAMES, "epochs": 0.1, **ONE_SIZE}
    train(tmp_path / "run", data, (images, EVALUATION[1]), **more)
    with pytest.raises(trainer.UserError, match=r"give images\[None\] for one image"):
        trainer.predict(tmp_path / "run", images[0])
    (found,) = trainer.predict(tmp_path / "run", images[0][None])
    assert found["index"] == 0


@pytest.mark.parametrize(
    "image", [None, 5, np.uint8(3), np.array(3), b"png", Image.new("L", (12, 12))]
)
def test_what_is_not_several_images_is_named(tmp_path, image):
    with pytest.raises(trainer.UserError, match=f"images has the type {type(image).__name__}, not"):
        trainer.predict(tmp_path, image)


def test_an_image_that_cannot_be_used_is_left_out(trained):
    good = arrays(1)[0][0]
    found = trainer.predict(trained[0], [good, good.astype(float), good])
    assert [each["index"] for each in found] == [0, 2]
    with pytest.raises(trainer.UserError, match="no pictures given"):
        trainer.predict(trained[0], [])


def test_the_loaded_model_is_plain_keras_with_class_names(trained, tmp_path):
    folder, result = trained
    model = trainer.load(folder, checkpoint="best")
    images, labels = EVALUATION
    logits = model(images)
    assert np.mean(np.argmax(logits, axis=1) == labels) == pytest.approx(result["best"]["top1"])
    assert model.class_names == tuple(NAMES)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(images), logits, rtol=1e-5)


def test_an_export_is_not_a_run(trained, tmp_path):
    with pytest.raises(trainer.UserError, match=r"keras\.models\.load_model"):
        trainer.load(trained[0], export_dir=tmp_path)
    with pytest.raises(trainer.UserError, match="is not a run directory"):
        trainer.load(tmp_path)


def test_an_evaluation_takes_the_devices_of_the_first_call(trained):
    trainer.evaluate(trained[0], data=EVALUATION, strategy="one_device")
    config = Config(model_dir="run")
    assert devices.to_read(config, []).strategy == "one_device"
    assert devices.to_read(config, ["strategy"]).strategy == "auto"
    with pytest.raises(trainer.UserError, match="asks for strategy='auto'"):
        devices.check_to_train("trainer.train", config)


@pytest.mark.parametrize("bucket_server", ["s3"], indirect=True)
def test_a_run_in_a_bucket_is_loaded_while_its_owner_trains(place, trained, tmp_path, capsys):
    with bucket_run.owned(url.parse(place.url), str(tmp_path / "owner"), 60.0) as run:
        shutil.copytree(trained[0], run.path, dirs_exist_ok=True)
    with bucket_run.owned(url.parse(place.url), str(tmp_path / "owner"), 60.0):
        trainer.load(place.url, cache_dir=tmp_path / "reader")
    first = len(place.proxy.requests)
    model = trainer.load(place.url, cache_dir=tmp_path / "reader")
    assert model.class_names == tuple(NAMES)
    # Results name the URL, and not the folder of the copy.
    found = trainer.evaluate(place.url, data=EVALUATION, cache_dir=tmp_path / "reader")
    assert found["checkpoint"].startswith(f"{place.url}/checkpoints/0")
    assert f"takes {place.url}/checkpoints/0" in capsys.readouterr().err
    trainer.predict(place.url, EVALUATION[0][:1], cache_dir=tmp_path / "reader")
    assert f"takes {place.url}/checkpoints/0" in capsys.readouterr().err
    assert not any(request.writes for request in place.proxy.requests[first:])
