import dataclasses
import json
import os
import resource
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.data.encoded_batch import decoder
from trainer.data.in_memory import InMemoryDataset
from trainer.distributed.strategy import mirrored
from trainer.errors import UserError
from trainer.nn.ghostify import unghostify
from trainer.nn.models import registry
from trainer.run_dir import exports
from trainer.training.evaluation import Evaluator

SHAPE = (28, 28, 3)
IMAGES = np.random.default_rng(0).integers(0, 256, (64, *SHAPE), np.uint8)
NAMES = ("cat", "dog", "owl", "ünï")
ABOUT = exports.ExportInfo(
    "checkpoints/000000007", 7, SHAPE, 5, {"keras": keras.__version__}, NAMES
)
FLAGS = "--epochs=2.0\n"
LOGITS = [*NAMES, "unused_4"]
DECODE = decoder(SHAPE, "none", 10**6)


def built(name):
    model = registry.build(
        f"tests.support.models:{name}",
        registry.ImageFormat(SHAPE, [100.0] * 3, [60.0] * 3),
        5,
        registry.GhostNorm(16, 0.5, "fused"),
        seed=0,
    )
    model(IMAGES, training=True)  # Updates the moving statistics.
    return unghostify(model)


@pytest.fixture(scope="module")
def tiny():
    return built("tiny")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "export"
    assert exports.write(folder, tiny, FLAGS, ABOUT, LOGITS, DECODE) is None
    return folder


@pytest.fixture
def export(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "export")


def forms(folder):
    return folder, folder / "model.keras"


def test_both_forms_compute_the_logits_of_the_model(tiny, whole):
    expected = tiny(IMAGES, training=False)
    for form in forms(whole):
        model = exports.load(form)
        for size in (1, 13, 64):
            logits = model(IMAGES[:size], training=False)
            assert logits.dtype == tf.float32
            np.testing.assert_allclose(logits, expected[:size], rtol=1e-5, atol=1e-6)


def test_tensorflow_alone_reads_the_names_of_the_logits(whole):
    names = tf.saved_model.load(str(whole / "saved_model")).class_names.numpy()
    assert [name.decode() for name in names] == LOGITS
    assert (whole / "classes.txt").read_text(encoding="utf-8").splitlines() == LOGITS


def test_encoded_pictures_get_names_and_probabilities(tiny, whole):
    model = tf.saved_model.load(str(whole / "saved_model"))
    files = [tf.io.encode_png(image) for image in IMAGES]
    found = model.serve_images(tf.stack(files))
    expected = tf.nn.softmax(tiny(IMAGES, training=False)).numpy()
    order = np.argsort(-expected, axis=1, kind="stable")
    names = [[name.decode() for name in row] for row in found["names"].numpy()]
    assert names == np.array(LOGITS)[order].tolist()
    sorted_probabilities = np.take_along_axis(expected, order, axis=1)
    np.testing.assert_allclose(found["probabilities"], sorted_probabilities, atol=1e-6)
    by_signature = model.signatures["serve_images"](encoded=tf.stack(files[:5]))
    np.testing.assert_array_equal(by_signature["names"], found["names"][:5])
    served = model.signatures["serving_default"](images=tf.constant(IMAGES))
    assert list(served) == ["output_0"]
    with pytest.raises(tf.errors.InvalidArgumentError, match="neither a JPEG nor a PNG file"):
        model.serve_images(tf.constant([b"text"]))


@pytest.fixture(scope="module")
def replaced(whole, tmp_path_factory):
    """An export over another one; a killed export has left a folder beside it."""
    folder = shutil.copytree(whole, tmp_path_factory.mktemp("replaced") / "export")
    left = folder.with_name(".export-abcd1234")
    left.mkdir()
    (left / "owner").touch()  # No process has locked it.
    (left / "new").mkdir()
    model = built("tiny")
    model.weights[-1].assign([20.0, 60.0, 40.0, -60.0, -40.0])  # Three sigmoids are 1 in float32.
    about = dataclasses.replace(ABOUT, loss="sigmoid")
    exports.write(folder, model, FLAGS, about, LOGITS, DECODE)
    return folder


def test_a_sure_model_serves_the_class_of_the_largest_logit_first(replaced):
    served = tf.saved_model.load(str(replaced / "saved_model"))
    logits = served.serve(IMAGES[:1])[0].numpy()
    names = served.serve_images(tf.stack([tf.io.encode_png(IMAGES[0])]))["names"][0].numpy()
    order = np.argsort(-logits)
    assert [name.decode() for name in names] == np.array(LOGITS)[order].tolist()
    assert order[:3].tolist() == [1, 2, 0]


def test_the_folder_of_a_killed_export_is_removed(replaced):
    assert [path.name for path in replaced.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, NotImplementedError])
def test_a_layer_that_cannot_tell_its_arguments_is_left_out_of_model_keras(tmp_path, error):
    class Odd(keras.layers.Identity):
        def get_config(self):
            raise error("no units")

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Odd()(inputs))
    assert exports._write_keras_file(model, tmp_path / "model.keras") == "no units"
    assert [*tmp_path.iterdir()] == []


def test_weights_are_written_once(tiny, whole):
    size = 4 * tiny.count_params()
    data = whole / "saved_model" / "variables" / "variables.data-00000-of-00001"
    assert size <= data.stat().st_size < 1.9 * size + 4096


def test_both_forms_evaluate_the_same_on_replicas(tiny, whole, cpus):
    labels = np.arange(64) % 5
    images = InMemoryDataset(IMAGES, labels, tuple("abcde"), "random")
    one = tf.distribute.OneDeviceStrategy(cpus[0])
    expected = Evaluator(one, tiny, images).evaluate()
    strategy = mirrored(cpus[:3])
    for form in forms(whole):
        with strategy.scope():
            model = exports.load(form)
        found = Evaluator(strategy, model, images).evaluate()
        assert found.loss == pytest.approx(expected.loss, rel=1e-6)
        assert found.top1 == expected.top1


def test_about_reads_what_was_written(whole):
    assert exports.about(whole) == ABOUT
    assert (whole / "flags.txt").read_text() == FLAGS


def test_modules_needed_are_those_of_custom_layers(tiny):
    assert exports.modules_needed(tiny) == []
    assert exports.modules_needed(built("with_a_layer_of_its_own")) == ["tests.support.models"]


def test_a_model_that_keras_cannot_save_has_a_saved_model(tmp_path):
    """The model behaves as in training if `training` is not given."""
    model = built("subclassed")
    expected = model(IMAGES, training=False)
    reason = exports.write(tmp_path / "export", model, FLAGS, ABOUT, LOGITS, DECODE)
    assert reason.startswith("Object Subclassed was created by passing non-serializable")
    assert len(reason) <= 200
    logits = exports.load(tmp_path / "export")(IMAGES, training=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match=rf"or use --export_dir={tmp_path}/export\."):
        exports.load(tmp_path / "export" / "model.keras")


def test_only_new_empty_or_own_folders_are_free(export, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "empty", export):
        exports.check_free(folder, FLAGS + "--data_dir=elsewhere\n")
    with pytest.raises(UserError, match=r"export of another run: --epochs: 2.0 → 3.0"):
        exports.check_free(export, "--epochs=3.0\n")
    with pytest.raises(UserError, match="exists and is not an export"):
        exports.check_free(tmp_path, FLAGS)
    (export / "flags.txt").unlink()
    with pytest.raises(UserError, match="exists and is not an export"):
        exports.check_free(export, FLAGS)


@pytest.mark.parametrize("limit", [1_000, 20_000])
def test_a_failed_export_leaves_the_previous_one(tiny, export, limit):
    """The kernel limits the size of files, which fails a write as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
    try:
        with pytest.raises(UserError, match=r"cannot be written: ") as error:
            exports.write(export, tiny, FLAGS, ABOUT, LOGITS, DECODE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(str(error.value).splitlines()) == 2
    assert [path.name for path in export.parent.iterdir()] == ["export"]
    assert exports.load(export)(IMAGES[:1], training=False).shape == (1, 5)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


VARIABLES = "saved_model/variables/variables"


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("saved_model/saved_model.pb", cut),
        ("saved_model/saved_model.pb", remove),
        (f"{VARIABLES}.index", cut),
        (f"{VARIABLES}.index", flip),
        (f"{VARIABLES}.index", remove),
        (f"{VARIABLES}.data-00000-of-00001", cut),
        (f"{VARIABLES}.data-00000-of-00001", flip),
        (f"{VARIABLES}.data-00000-of-00001", remove),
        ("model.keras", cut),
        ("model.keras", flip),
        ("model.keras", remove),
    ],
)
def test_a_damaged_export_is_rejected(export, file, damage):
    path = export / file
    damage(path)
    form = path if path.suffix == ".keras" else export
    with pytest.raises(UserError, match=r"cannot be loaded: .*\nExport the run again") as error:
        exports.load(form)
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"update": 7}', "null"])
def test_a_damaged_export_json_is_rejected(export, content):
    (export / "export.json").write_text(content)
    with pytest.raises(UserError, match=r"export.json is damaged"):
        exports.about(export)


@pytest.mark.parametrize("names", ["ab", ["a", "a"], ["a"] * 99, [["a"]], {"a": 1}], ids=str)
def test_class_names_must_be_distinct_names(export, names):
    info = json.loads((export / "export.json").read_text())
    (export / "export.json").write_text(json.dumps({**info, "class_names": names}))
    with pytest.raises(UserError, match=r"export.json is damaged"):
        exports.about(export)


@pytest.mark.parametrize("kind", ["FIFO", "folder"])
def test_flags_of_an_export_that_cannot_be_read_are_an_error(export, kind):
    (export / "flags.txt").unlink()
    os.mkfifo(export / "flags.txt") if kind == "FIFO" else (export / "flags.txt").mkdir()
    with pytest.raises(UserError, match=rf"flags.txt cannot be read: it is a {kind}.*\nDelete"):
        exports.check_free(export, FLAGS)


def of_a_module(export, serve):
    shutil.rmtree(export / "saved_model")
    module = tf.Module()
    module.v = tf.Variable(1.0)
    if serve is not None:
        module.serve = serve
    tf.saved_model.save(module, str(export / "saved_model"))


@pytest.mark.parametrize(
    "serve",
    [None, tf.function(lambda x: x, input_signature=[tf.TensorSpec([3], tf.float32)])],
    ids=["none", "of_others"],
)
def test_a_saved_model_of_another_program_is_rejected(export, serve):
    of_a_module(export, serve)
    with pytest.raises(UserError, match="cannot be loaded: "):
        exports.load(export)


def test_an_export_json_with_another_number_of_classes_is_rejected(export):
    info = json.loads((export / "export.json").read_text())
    (export / "export.json").write_text(json.dumps(info | {"classes": 6}))
    with pytest.raises(UserError, match="and not 6 columns"):
        exports.load(export)
