"""Runs that start from the weights of another: --init_from, with layers frozen or not."""

import functools
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support.configs import done, parsed
from tests.support.models import normalizing, with_a_layer_of_its_own
from tests.support.runs import (
    SHORT,
    digest,
    kill_after,
    newest,
    points,
    result,
    started,
    train,
)
from tests.support.workers import SMOOTH, finished, launched
from trainer.run_dir import training_data
from trainer.training import pretrained

DENSE = "dense"
# After SHORT: other examples, two batch sizes, and the last layer alone trains.
FINE = [
    *SHORT,
    *("--train_split=train[4000:8000]", "--epochs=1", "--anneal_epochs=40%"),
    f"--freeze=(?!{DENSE})",
]


@pytest.fixture(scope="module")
def exported(uninterrupted, tmp_path_factory):
    """The export of the run's last update, and the same weights in Keras' other format."""
    folder = tmp_path_factory.mktemp("source") / "export"
    train(uninterrupted[0], f"--export_dir={folder}", name="export")
    model = keras.models.load_model(folder / "model.keras")
    model.save_weights(folder.parent / "whole.weights.h5")
    model.layers[-1].save_weights(folder.parent / "network.weights.h5")
    return folder


def test_all_forms_of_one_run_have_the_same_weights(uninterrupted, exported):
    model_dir, _ = uninterrupted
    data = training_data.read(model_dir)
    forms = {
        "run": model_dir,
        "update": f"{model_dir}@178",
        "export": exported,
        "keras": exported / "model.keras",
        "whole": exported.parent / "whole.weights.h5",
        "network": exported.parent / "network.weights.h5",
    }
    sources, tensors = {}, {}
    for name, form in forms.items():
        config = parsed(*SHORT, f"--init_from={form}", "--precision=float32")
        sources[name] = pretrained.find(config)
        tensors[name] = sources[name].tensors(functools.partial(pretrained.fresh, config, data))
    for name, values in tensors.items():
        assert {f"{DENSE}/kernel", "conv2d/kernel"} <= {*values}, name
        for path, value in values.items():
            np.testing.assert_array_equal(value, tensors["run"][path])
    for name in ("run", "update", "export", "keras"):
        assert sources[name].statistics == (
            pytest.approx(data.mean, rel=1e-6),
            pytest.approx(data.std, rel=1e-6),
        )
    assert sources["whole"].statistics is None
    assert sources["export"].class_names == sources["run"].class_names == data.class_names


def test_a_frozen_backbone_stays_bit_for_bit_and_a_kill_changes_nothing(uninterrupted, tmp_path):
    source = shutil.copytree(uninterrupted[0], tmp_path / "source")
    flags = [*FINE, f"--init_from={source}"]
    whole = train(tmp_path / "whole", *flags)
    assert "7 of 7 tensors are loaded, 322 of 322 values; new: none;" in whole.stdout
    assert "--freeze: 2 of 3 layers are frozen; 90 of 322 values train" in whole.stdout
    # Also if it is killed before its first update, a run does not read the source again.
    kill_after(started(tmp_path / "killed", *flags), tmp_path / "killed", 0)
    shutil.rmtree(source)
    (tmp_path / "killed" / "training_data.json").unlink()  # A checkpoint has the same.
    again = train(tmp_path / "killed", *flags)
    assert "tensors are loaded" not in again.stdout
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    sizes = {point["batch_size"] for point in points(tmp_path / "whole")}
    assert sizes == {32, 160}
    assert result(tmp_path / "whole")["traces"] == 1
    before, after = (
        pretrained.find(parsed(f"--init_from={folder}")).tensors(None)
        for folder in (uninterrupted[0], tmp_path / "whole")
    )
    changed = [path for path in before if np.any(before[path] != after[path])]
    assert changed == [f"{DENSE}/kernel", f"{DENSE}/bias"]
    table = (tmp_path / "whole" / "init_from.txt").read_text().splitlines()
    assert table == [f"loaded\t{path}" for path in before]
    # The statistics of the images are those of the source.
    kept = [
        json.loads((folder / "training_data.json").read_text())
        for folder in (uninterrupted[0], tmp_path / "whole")
    ]
    assert kept[0]["mean"] == kept[1]["mean"]
    assert kept[0]["std"] == kept[1]["std"]


def test_loaded_statistics_count_as_settled(uninterrupted, tmp_path):
    few = ["--train_split=train[:800]", "--eval_split=test[:200]", "--epochs=0.1"]
    train(tmp_path, *SHORT, *few, f"--init_from={uninterrupted[0]}")
    reader = tf.train.load_checkpoint(str(newest(tmp_path) / "checkpoint"))
    progress = json.loads(reader.get_tensor("progress/.ATTRIBUTES/VARIABLE_VALUE"))
    assert progress["statistics_starts"] == {"0": None}


def test_two_workers_start_from_what_the_chief_has_read(uninterrupted, tmp_path):
    """A smooth model's variables have the names and shapes of those of the run."""
    flags = [*SMOOTH, "--epochs=0.1", f"--init_from={uninterrupted[0]}", f"--freeze=(?!{DENSE})"]
    train(tmp_path / "one", *flags)
    assert "[1] --init_from" not in finished(launched(2, tmp_path / "two", *flags))
    one, two = (points(tmp_path / name) for name in ("one", "two"))
    for ours, theirs in zip(two, one, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)


@pytest.mark.parametrize(
    ("init_from", "message"),
    [
        ("{run}/nowhere", "--init_from={run}/nowhere does not exist."),
        ("{run}@77", "--init_from={run}@77 does not exist: checkpoints of updates "),
        ("@best", "--init_from=@best does not exist."),
        ("{run}/checkpoints", "is not a run directory"),
        ("{run}/model.keras", "--init_from={run}/model.keras cannot be read: No such file"),
        ("{run}/x.weights.h5", "--init_from={run}/x.weights.h5 cannot be read: No such file"),
        ("imagenet", "--model=tests.support.models:tiny is not one of them"),
    ],
)
def test_sources_that_cannot_be_read_are_refused(
    capsys, uninterrupted, tmp_path, init_from, message
):
    flags = [*SHORT, f"--init_from={init_from.format(run=uninterrupted[0])}"]
    status, _, error = done(capsys, *flags, f"--model_dir={tmp_path}/run")
    assert status == 2
    assert message.format(run=uninterrupted[0]) in error
    assert len(error.strip().splitlines()) <= 2
    assert not (tmp_path / "run" / "flags.txt").exists()


def test_a_wrong_source_is_refused_before_a_picture_is_read(capsys, tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(20):
                (tmp_path / split / name / f"{number}.jpg").write_bytes(b"not a picture")
    flags = [f"--dataset=image_folder:{tmp_path}", "--image_size=8", f"--model_dir={tmp_path}/run"]
    flags += ["--initial_batch_size=4", "--ghost_batch_size=4"]
    _, _, error = done(capsys, "train", *flags, f"--init_from={tmp_path}/nowhere")
    assert f"--init_from={tmp_path}/nowhere does not exist." in error


def test_weights_of_another_model_are_refused(capsys, uninterrupted, tmp_path):
    flags = [*SHORT, "--model=wide_resnet_10_1", f"--init_from={uninterrupted[0]}"]
    status, _, error = done(capsys, *flags, f"--model_dir={tmp_path}/run")
    assert status == 2
    first, second = error.splitlines()
    assert "none of its weights fits --model=wide_resnet_10_1 by path and shape" in first
    assert second == "Name the --model that the weights were trained with."


def test_statistics_of_other_pixels_are_not_taken(tmp_path):
    """After a Rescaling, a mean is not that of pixels 0 to 255."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Normalization(mean=[0.286], variance=[0.125]),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    model.save(tmp_path / "scaled.keras")
    source = pretrained.find(parsed(f"--init_from={tmp_path}/scaled.keras"))
    assert source.statistics is None


def test_layers_of_the_user_s_own_are_found_by_the_model_s_module(tmp_path):
    name = "tests.support.models:with_a_layer_of_its_own"
    with_a_layer_of_its_own((28, 28, 1), 10).save(tmp_path / "own.keras")
    flags = (f"--model={name}", f"--init_from={tmp_path}/own.keras")
    assert "dense/kernel" in pretrained.find(parsed(*flags)).tensors(None)


def test_weights_of_a_network_load_in_bfloat16(exported):
    path = exported.parent / "network.weights.h5"
    config = parsed(*SHORT, f"--init_from={path}", "--precision=bfloat16")
    data = training_data.TrainingData(100, (28, 28, 1), 10, (70.0,), (80.0,))
    found = pretrained.find(config).tensors(lambda: pretrained.fresh(config, data))
    assert f"{DENSE}/kernel" in found


def test_a_run_its_fork_and_its_export_compute_with_loaded_statistics(capsys, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), np.uint8)
    model = normalizing((28, 28, 1), 10)
    model.layers[0].adapt(images + np.float32(1000))
    model.save(tmp_path / "adapted.keras")
    flags = [
        *("--model=tests.support.models:normalizing", "--augment=none", "--epochs=1"),
        *("--train_split=train[:256]", "--eval_split=test[:64]", "--max_batch_size=32"),
        *("--base_batch_size=32", "--ghost_batch_size=8", "--micro_batch_size=32"),
    ]
    # The learning rate is so small that the parameters stay the same in float32.
    flags += ["--base_learning_rate=1e-30", "--nodeterministic"]
    loaded = [*flags, f"--init_from={tmp_path}/adapted.keras"]
    whole, stopped, fork = tmp_path / "whole", tmp_path / "stopped", tmp_path / "fork"
    assert done(capsys, "train", *loaded, f"--model_dir={whole}")[0] == 0
    assert done(capsys, "train", *loaded, f"--model_dir={stopped}", "--stop_at_epoch=0.5")[0] == 0
    assert done(capsys, "train", *loaded, f"--model_dir={stopped}")[0] == 0
    given = [*flags, f"--fork_from={stopped}@newest", "--fork_position=0"]
    assert done(capsys, "train", *given, f"--model_dir={fork}")[0] == 0
    losses = [result(run)["loss"] for run in (whole, stopped, fork)]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)
    without = ["evaluate", f"--model_dir={whole}", "--format=json"]
    assert json.loads(done(capsys, *without)[1])["loss"] == pytest.approx(losses[0], rel=1e-6)
    given = [f"--model_dir={whole}", f"--export_dir={tmp_path}/export"]
    assert done(capsys, "export", *given)[0] == 0
    exported = keras.models.load_model(tmp_path / "export" / "model.keras")
    saved = tf.saved_model.load(str(tmp_path / "export" / "saved_model"))
    logits = exported(images)
    np.testing.assert_allclose(saved.serve(images), logits, rtol=1e-4, atol=1e-5)
    # An old version's checkpoint lacks the field, and its model computes as in that version.
    forget(newest(whole) / "checkpoint", "normalization_refreshed")
    assert json.loads(done(capsys, *without)[1])["loss"] > 3 * losses[0]


def forget(path, field):
    """Removes a field of the progress in a checkpoint."""
    end = "/.ATTRIBUTES/VARIABLE_VALUE"
    reader = tf.train.load_checkpoint(str(path))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith(end)]
    values = {name.removesuffix(end): reader.get_tensor(name) for name in names}
    progress = json.loads(values.pop("progress"))
    del progress[field]
    groups = {name.partition("/")[0]: [] for name in values}
    for name in sorted(values, key=lambda name: int(name.rpartition("/")[2])):
        groups[name.partition("/")[0]].append(tf.Variable(values[name]))
    text = tf.Variable(json.dumps(progress), dtype=tf.string)
    tf.train.Checkpoint(progress=text, **groups).write(str(path))
