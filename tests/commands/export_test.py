"""Exports load without this program, and are the model that was trained."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.commands.evaluate_test import everything, logged, same
from tests.support import messages
from tests.support.configs import done, parsed
from tests.support.runs import SHORT, train
from trainer.run_dir import checkpoint_reader, model_source, training_data
from trainer.training import setup

# As on a machine that has TensorFlow alone.
LOAD = """
import sys
sys.modules["trainer"] = sys.modules["tests"] = None
import keras, numpy, tensorflow as tf
images = numpy.load("images.npy")
whole, own = sys.argv[1:]
own_model = tf.saved_model.load(f"{own}/saved_model")
saved_model = tf.saved_model.load(f"{whole}/saved_model")
forms = {
    "own": own_model.serve,
    "saved_model": saved_model.serve,
    "keras": keras.models.load_model(f"{whole}/model.keras"),
}
for size in (1, 7, 100):
    for name, model in forms.items():
        logits = model(images[:size])
        assert logits.dtype == tf.float32
        numpy.save(f"{name}-{size}.npy", logits)
"""


def export(capsys, *flags):
    status, out, err = done(capsys, "export", *flags)
    assert status == 0, err
    return out


def logits_of_checkpoint(model_dir, update, images):
    kept = model_source.kept_flags("evaluate", parsed(f"--model_dir={model_dir}"))
    config = parsed(*kept)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    model = setup.build(config, training_data.read(model_dir), strategy)
    variables = {"weights": setup.values(model)}
    with messages.logged() as found:
        checkpoint_reader.load(model_dir / "checkpoints", update, variables)
    assert found == []
    return model(images, training=False).numpy()


def random_images(shape=(28, 28, 1)):
    return np.random.default_rng(0).integers(0, 256, (100, *shape), np.uint8)


@pytest.fixture(scope="module")
def exported(uninterrupted, tmp_path_factory):
    """The export of update 170, by a process of its own, and what that printed."""
    folder = tmp_path_factory.mktemp("exports") / "export"
    flags = [f"--model_dir={uninterrupted[0]}", "--checkpoint=170", f"--export_dir={folder}"]
    command = [sys.executable, "-m", "trainer", "export", *flags]
    return folder, subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A bfloat16 run of a model with a layer of its own, with its export, and what that printed."""
    model_dir = tmp_path_factory.mktemp("own") / "run"
    flags = ["--model=tests.support.models:with_a_layer_of_its_own", "--precision=bfloat16"]
    train(model_dir, *SHORT, *flags, "--epochs=0.05")
    return model_dir, train(model_dir, name="export").stdout


@pytest.fixture(scope="module")
def elsewhere(exported, own, tmp_path_factory):
    """Logits by name and batch, computed by a process that has only the two exports."""
    folder = tmp_path_factory.mktemp("elsewhere")
    np.save(folder / "images.npy", random_images())
    exports = [str(exported[0]), str(own[0] / "export")]
    subprocess.run([sys.executable, "-I", "-c", LOAD, *exports], cwd=folder, check=True)
    return {path.stem: np.load(path) for path in folder.glob("*-*.npy")}


def test_it_loads_elsewhere_with_the_same_logits(uninterrupted, elsewhere):
    expected = logits_of_checkpoint(uninterrupted[0], "170", random_images())
    found = {name: logits for name, logits in elsewhere.items() if not name.startswith("own")}
    assert len(found) == 6
    for name, logits in found.items():
        size = int(name.rpartition("-")[2])
        assert logits.shape == (size, 10)
        np.testing.assert_allclose(logits, expected[:size], rtol=1e-5, atol=1e-6)


def test_it_says_how_to_load_it(uninterrupted, exported):
    folder, said = exported
    head, classes, saved_model, serving, explained, keras_file = said.splitlines()
    assert head == (
        f"{folder} holds update 170 of {uninterrupted[0]}, "
        "from uint8 images [b, 28, 28, 1] to float32 logits [b, 10]:"
    )
    assert classes.startswith(
        "  classes.txt names the logits, as model.class_names does: T-shirt/top,"
    )
    images = random_images()
    names = {"tf": tf, "keras": keras, "images": images}
    found = []
    for way in (saved_model, keras_file):
        exec(way.strip(), names)
        found.append(names["logits"])
    one, other = found
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    png = tf.io.encode_png(images[0]).numpy()
    names["files"] = [png]
    exec(serving.strip(), names)
    assert float(names["found"]["probabilities"][0, 0]) == pytest.approx(
        tf.reduce_max(tf.nn.softmax(one[0])).numpy(), abs=1e-6
    )
    best = int(tf.argmax(one[0]))
    name = names["found"]["names"][0, 0].numpy().decode()
    assert name == (folder / "classes.txt").read_text().splitlines()[best]
    assert explained == (
        "    files: bytes of JPEGs and PNGs; found: their names and probabilities, best first"
    )


@pytest.mark.parametrize("form", ["", "/model.keras"])
def test_it_evaluates_as_the_run_did(capsys, uninterrupted, exported, form):
    flags = (f"--export_dir={exported[0]}{form}", "--format=json")
    status, out, err = done(capsys, "evaluate", *flags)
    assert status == 0, err
    same(json.loads(out), logged(uninterrupted[0], 170))
    assert json.loads(out)["export"] == f"{exported[0]}{form}"


def test_an_export_of_the_same_run_is_replaced(capsys, uninterrupted, tmp_path):
    flags = [f"--model_dir={uninterrupted[0]}", f"--export_dir={tmp_path}/export"]
    updates = []
    for which in ("125", "newest"):
        export(capsys, *flags, f"--checkpoint={which}")
        updates.append(json.loads((tmp_path / "export" / "export.json").read_text())["update"])
        assert [path.name for path in tmp_path.iterdir()] == ["export"]
    assert updates == [125, 178]


def test_what_is_something_else_is_left_alone(capsys, uninterrupted, exported, tmp_path):
    (tmp_path / "thesis.tex").touch()
    run = f"--model_dir={uninterrupted[0]}"
    for flags, message in (
        ([f"--export_dir={tmp_path}"], "exists and is not an export"),
        ([f"--export_dir={tmp_path}/thesis.tex"], "exists and is not an export"),
        ([f"--export_dir={uninterrupted[0]}"], "exists and is not an export"),
        ([f"--export_dir={tmp_path}/thesis.tex/x"], "cannot be written: "),
        ([f"--export_dir={exported[0]}", "--image_size=32"], "of another run: --image_size: "),
        (["--checkpoint=126"], "--checkpoint=126 does not exist"),
    ):
        before = everything(tmp_path), everything(exported[0]), everything(uninterrupted[0])
        status, _, err = done(capsys, "export", run, *flags)
        assert status == 2
        assert message in err
        assert len(err.splitlines()) <= 2
        after = everything(tmp_path), everything(exported[0]), everything(uninterrupted[0])
        assert after == before


def test_a_model_with_a_layer_of_its_own(own, elsewhere):
    """Its export is in its run directory, which is the default."""
    model_dir, said = own
    *_, last = said.splitlines()
    assert last == "  first import tests.support.models, which defines the layers"
    assert keras.models.load_model(model_dir / "export" / "model.keras")
    expected = logits_of_checkpoint(model_dir, "newest", random_images())
    np.testing.assert_allclose(elsewhere["own-100"], expected, rtol=0.02, atol=0.02)


def test_the_size_of_images_may_be_another(capsys, uninterrupted, tmp_path):
    folder = pathlib.Path(tmp_path, "export")
    out = export(
        capsys, f"--model_dir={uninterrupted[0]}", f"--export_dir={folder}", "--image_size=40"
    )
    assert "uint8 images [b, 40, 40, 1]" in out
    model = tf.saved_model.load(str(folder / "saved_model"))
    assert model.serve(random_images((40, 40, 1))).shape == (100, 10)
    flags = [f"--export_dir={folder}", "--format=json"]
    status, out, _ = done(capsys, "evaluate", *flags)  # It brings --image_size.
    assert status == 0
    assert json.loads(out)["examples"] == 1000
    status, _, err = done(capsys, "evaluate", *flags, "--image_size=20")
    assert status == 2
    assert "images of shape (20, 20, 1), and the model takes (40, 40, 1)" in err
    assert "give --eval_image_size=40" in err
    # That flag counts for more than --image_size, whatever the export brings.
    status, _, err = done(capsys, "evaluate", *flags, "--image_size=20", "--eval_image_size=40")
    assert status == 0, err
