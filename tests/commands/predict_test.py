"""predict on a run, on its export, and in a Python with TensorFlow alone: the same answers."""

import csv
import io
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.commands.export_test import logits_of_checkpoint
from tests.support import runs
from tests.support.configs import done
from trainer.data.sources import load
from trainer.main import main

FLAGS = [
    "--model=tests.support.models:tiny",
    "--image_size=24",
    "--epochs=4",
    "--initial_batch_size=16",
    "--ghost_batch_size=16",
    "--max_batch_size=16",
    "--micro_batch_size=16",
    "--eval_every_epochs=4",
    "--log_every_updates=1000",
]
CLASSES = ["dark_above", "dark_below", "grey"]
# As on a machine that has TensorFlow alone.
ALONE = """
import json, sys
sys.modules["trainer"] = sys.modules["tests"] = sys.modules["PIL"] = None
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
found = model.serve_images(tf.constant([open(path, "rb").read() for path in sys.argv[2:]]))
by_signature = model.signatures["serve_images"](
    encoded=tf.constant([open(path, "rb").read() for path in sys.argv[2:]])
)
for name, value in found.items():
    tf.debugging.assert_equal(by_signature[name], value)
names = [[name.decode() for name in row] for row in found["names"].numpy().tolist()]
print(json.dumps([names, found["probabilities"].numpy().tolist()]))
"""


def photograph(rng, label: int) -> Image.Image:
    """A noisy picture that is dark above, dark below, or grey."""
    light = np.linspace(40, 200, 40)[:, None, None] * np.ones((40, 50, 3))
    pixels = (light, light[::-1], np.full_like(light, 120))[label]
    return Image.fromarray((pixels + rng.normal(0, 20, pixels.shape)).clip(0, 255).astype("uint8"))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Returns a folder with 160 pictures of three classes to train on, and 20 to evaluate."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 160), ("val", 20)):
        for number in range(count):
            label = number % 3
            path = root / split / CLASSES[label] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            exif = Image.Exif()
            exif[0x0112] = 1 if number % 4 else 3
            image = photograph(rng, label)
            (image if number % 4 else image.rotate(180)).save(path, exif=exif)
    return root


@pytest.fixture(scope="module")
def run(photographs):
    """Returns the directory of a run on the photographs, with its export in it."""
    model_dir = photographs / "run"
    finished = runs.train(model_dir, f"--dataset=image_folder:{photographs}", *FLAGS)
    *_, last = finished.stdout.splitlines()
    assert last.startswith("the best evaluation has top1 ")
    assert main(["crescendo", "export", f"--model_dir={model_dir}"]) == 0
    return model_dir


def predicted(capsys, *arguments):
    """Returns the objects that `predict --format=json` prints, and stderr."""
    status, out, error = done(capsys, "predict", "--format=json", *arguments)
    assert status == 0, error
    return [json.loads(line) for line in out.splitlines()], error


def same(found, expected):
    assert [each["names"] for each in found] == [each["names"] for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)


def test_a_run_its_export_and_tensorflow_alone_agree(capsys, photographs, run):
    rng = np.random.default_rng(1)
    folder = photographs / "new"
    (folder / "below").mkdir(parents=True)
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        photograph(rng, turned % 2).save(folder / f"{turned}.jpg", exif=exif)
    photograph(rng, 0).convert("L").resize((7, 90)).save(folder / "below" / "9.png")
    photograph(rng, 1).convert("RGBA").resize((24, 24)).save(folder / "below" / "a.png")
    found, error = predicted(capsys, f"--model_dir={run}", str(folder))
    paths = [each["path"] for each in found]
    assert paths == sorted(str(path) for path in folder.rglob("*.*g"))
    assert all(set(each["names"]) == set(CLASSES) for each in found)
    assert all(sum(each["probabilities"]) == pytest.approx(1) for each in found)
    assert error.startswith(f"crescendo predict: takes {runs.newest(run)}, the newest; ")
    assert error.count("\n") == 1
    for export in (run / "export", run / "export" / "model.keras"):
        exported, error = predicted(capsys, f"--export_dir={export}", str(folder))
        assert [each["path"] for each in exported] == paths
        same(exported, found)
        assert f"takes {export}, which holds update " in error
    arguments = [run / "export" / "saved_model", *paths]
    alone = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    names, probabilities = json.loads(alone.stdout)
    rows = zip(names, probabilities, strict=True)
    same([{"names": each, "probabilities": row} for each, row in rows], found)


@pytest.mark.parametrize("augment", ["none", "randaugment,imagenet"])
def test_probabilities_are_those_of_an_evaluation(capsys, photographs, run, augment):
    flags = [f"--model_dir={run}", f"--augment={augment}"]
    status, out, error = done(capsys, "evaluate", "--format=json", *flags)
    assert status == 0, error
    found, _ = predicted(capsys, *flags, str(photographs / "val"))
    labels = [os.path.basename(os.path.dirname(each["path"])) for each in found]
    right = [
        dict(zip(e["names"], e["probabilities"], strict=True))[label]
        for e, label in zip(found, labels, strict=True)
    ]
    evaluated = json.loads(out)
    loss = -sum(map(math.log, right)) / len(right)
    assert loss == pytest.approx(evaluated["loss"], abs=1e-5)
    hits = [each["names"][0] == label for each, label in zip(found, labels, strict=True)]
    assert sum(hits) / len(hits) == pytest.approx(evaluated["top1"])


def test_a_grey_model_of_a_prepared_set(capsys, uninterrupted, tmp_path):
    images = load("fashion_mnist", "test[:11]", None, None).images
    paths = []
    for number, image in enumerate(images):
        path = tmp_path / f"{number:02d}.png"
        Image.fromarray(image[..., 0]).convert("L" if number % 2 else "RGB").save(path)
        paths.append(str(path))
    flags = [f"--model_dir={uninterrupted[0]}", "--top_k=10"]
    found, _ = predicted(capsys, *flags, *reversed(paths))
    assert [each["path"] for each in found] == paths[::-1]
    expected = tf.nn.softmax(logits_of_checkpoint(uninterrupted[0], "newest", images)).numpy()
    probabilities = np.array([each["probabilities"] for each in found[::-1]])
    np.testing.assert_allclose(probabilities, -np.sort(-expected, axis=1), atol=1e-5)


def test_damaged_pictures_are_named_and_the_others_predicted(capsys, photographs, run, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    rng = np.random.default_rng(2)
    for number, suffix in enumerate(("jpg", "webp", "bmp", "gif", "png")):
        photograph(rng, 0).save(folder / f"{number}.{suffix}")
    whole = (folder / "0.jpg").read_bytes()
    for number in range(12):
        (folder / f"cut{number:02d}.jpg").write_bytes(whole[: 20 * number])
    (folder / "notes.txt").touch()
    (folder / ".hidden.jpg").touch()
    for flags in ([f"--model_dir={run}"], [f"--export_dir={run}/export"]):
        found, error = predicted(capsys, *flags, str(folder), "--top_k=1")
        assert [os.path.basename(each["path"]) for each in found] == [
            *("0.jpg", "1.webp", "2.bmp", "3.gif", "4.png")
        ]
        assert [len(each["names"]) for each in found] == [1] * 5
        first, _, *named, last = error.splitlines()
        assert first.endswith("17 pictures; 2 files left out (.txt 1, hidden 1)")
        for number, line in enumerate(sorted(named)):
            bad = f"crescendo predict: {folder}/cut{number:02d}.jpg is left out: it is "
            assert line.startswith(bad)
        assert last.endswith("12 of 17 pictures cannot be used, and have no prediction")
    cut = [str(folder / f"cut{number:02d}.jpg") for number in range(3)]
    status, out, error = done(capsys, "predict", f"--model_dir={run}", *cut)
    assert (status, out) == (2, "")
    *_, problem, remedy = error.splitlines()
    assert problem == "crescendo predict: none of the pictures can be used (3 given)."
    assert remedy.startswith("Name JPEG, PNG, WebP, BMP or GIF files")


ODD = [b"new\nline.jpg", b"caf\xe9.jpg", b'a,"b".jpg', b"\x1b[2J.jpg", "é 猫.jpg".encode()]


def test_odd_names_survive_in_every_format(capsys, run, tmp_path):
    picture = photograph(np.random.default_rng(3), 1)
    paths = [os.path.join(os.fsencode(tmp_path), name) for name in ODD]
    for path in paths:
        with open(path, "wb") as file:
            picture.save(file, "JPEG")
    given = [os.fsdecode(path) for path in paths]
    found, _ = predicted(capsys, f"--model_dir={run}", *given)
    assert [os.fsencode(each["path"]) for each in found] == paths
    flags = ["predict", f"--model_dir={run}", "--top_k=2"]
    status, out, _ = done(capsys, *flags, "--format=csv", *given)
    assert status == 0
    header, *rows = csv.reader(io.StringIO(out))
    assert header == ["path", "class_1", "probability_1", "class_2", "probability_2"]
    escaped = {given[1]: f"{tmp_path}/caf\\udce9.jpg", given[3]: f"{tmp_path}/\\x1b[2J.jpg"}
    assert [row[0] for row in rows] == [escaped.get(path, path) for path in given]
    for row, each in zip(rows, found, strict=True):
        assert row[1::2] == each["names"][:2]
        assert [float(value) for value in row[2::2]] == each["probabilities"][:2]
    status, out, _ = done(capsys, *flags, *given)
    assert status == 0
    lines = out.splitlines()
    assert len(lines) == len(ODD)
    assert all(line.isprintable() for line in lines)
    for line, each in zip(lines, found, strict=True):
        cells = line[len(str(tmp_path)) :].split()[-4:]
        assert cells[::2] == each["names"][:2]
        assert cells[1::2] == [f"{value:.4f}" for value in each["probabilities"][:2]]
    assert lines[0].startswith(f"{tmp_path}/new\\nline.jpg ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_dir={0}"], "no pictures given: name files or folders"),
        (["--model_dir={0}", "{0}/x.jpg"], "x.jpg cannot be read: No such file or directory"),
        (["--model_dir={0}", "{1}", "--top_k=4"], "--top_k=4 is above the model's 3 classes"),
        (["--model_dir={0}/export", "{1}"], "is an export: use `evaluate --export_dir="),
        (["{1}"], "evaluate and predict also take an export, --export_dir"),
        (["--export_dir={0}", "{1}"], "is not an export"),
        (["--model_dir={0}", "--eval_split=val", "{1}"], "--eval_split is a flag of plan, "),
    ],
    ids=str,
)
def test_mistakes_are_rejected(capsys, photographs, run, arguments, message):
    picture = photographs / "val" / "grey" / "2.jpg"
    arguments = [each.format(run, picture) for each in arguments]
    status, out, error = done(capsys, "predict", *arguments)
    assert (status, out) == (2, "")
    assert message in error


def test_the_default_prints_three_classes(capsys, uninterrupted, photographs):
    picture = photographs / "val" / "grey" / "2.jpg"
    found, _ = predicted(capsys, f"--model_dir={uninterrupted[0]}", str(picture))
    assert len(found[0]["names"]) == len(found[0]["probabilities"]) == 3
