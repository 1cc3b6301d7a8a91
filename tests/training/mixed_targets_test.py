"""Updates of mixed examples: a slow reference, any layout, and runs that are killed and resumed."""

import functools
import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data.mixing_test import reference
from tests.support import runs
from tests.support.configs import done
from tests.support.steps import IMAGES, LABELS, step_on, strategy_of, tiny, weights
from trainer.config.augment_list import parse
from trainer.data.in_memory import InMemoryDataset
from trainer.data.mixing import Mixing
from trainer.data.pipeline import ExampleStream, training
from trainer.nn.losses import Loss, TrainingLoss
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch

SEED = 2**62 + 11  # That of `reference`.
SOURCE = InMemoryDataset(IMAGES, LABELS, tuple("abc"), "random")
CLASS_WEIGHTS = (0.5, 1.0, 2.0)


def trained(step, b, sizes, ghost, *, rate=0.3):
    """Losses, hits and squared norms of updates of these sizes, from mixed examples in order."""
    replicas, position, records = step.strategy.num_replicas_in_sync, 0, []
    stream = ExampleStream(
        *(SOURCE, parse("none"), SEED),
        order=lambda positions: positions % len(LABELS),
        mixing=Mixing(0.5, 1.0, ghost),
    )
    where = {"replicas": replicas, "local_replicas": range(replicas)}
    iterator = iter(training(stream, position=0, micro_batch_size=b, **where))
    for size, group in itertools.groupby(sizes):
        settings = tuple(Setting(size, rate, 0.9) for _ in group)
        stretch = Stretch(position, settings, Layout(replicas, b, size // (replicas * b)))
        records.append(step.run(iterator, stretch))
        position = stretch.end
    names = ("loss", "top1", "batch_sq_norm")
    return [np.concatenate([getattr(record, name) for record in records]) for name in names]


@pytest.mark.parametrize(
    "loss",
    [
        TrainingLoss(label_smoothing=0.1, class_weights=CLASS_WEIGHTS),
        TrainingLoss(Loss("sigmoid"), 0.1, threshold=0.2),
    ],
    ids=["softmax", "sigmoid"],
)
def test_an_update_of_mixed_examples_equals_a_slow_reference(cpus, loss):
    """Images are mixed, ghost batches computed and losses added up one by one."""
    ghost, batch, rate = 16, 64, 0.3
    mixed, own, other, shares = reference(
        IMAGES[:batch], LABELS[:batch], 0, Mixing(0.5, 1.0, ghost)
    )
    step = step_on(strategy_of(cpus, 1), optimizer="sgd", weight_decay=0.0, loss=loss)
    model = tiny(ghost=ghost)
    parameters = [variable.value for variable in model.trainable_variables]
    total, correct = 0.0, 0
    with tf.GradientTape() as tape:
        for start in range(0, batch, ghost):
            logits = model(mixed[start : start + ghost], training=True)
            log_p, log_q = tf.math.log_sigmoid(logits), tf.math.log_sigmoid(-logits)
            for i in range(ghost):
                a, b, share = (int(own[start + i]), int(other[start + i]), shares[start + i])
                correct += int(np.argmax(logits[i]) == (a if share >= 0.5 else b))
                if loss.loss.name == "softmax":
                    target = np.zeros(3)
                    for label, part in ((a, share), (b, 1 - share)):
                        smoothed = np.full(3, 0.1 / 3) + 0.9 * np.eye(3)[label]
                        target += part * CLASS_WEIGHTS[label] * smoothed
                    total -= tf.reduce_sum(target * tf.nn.log_softmax(logits[i]))
                else:
                    present = share * np.eye(3)[a] + (1 - share) * np.eye(3)[b] > 0.2
                    target = 0.9 * present + 0.1 / 3
                    total -= tf.reduce_sum(target * log_p[i] + (1 - target) * log_q[i])
    gradients = tape.gradient(total, parameters)
    losses, top1, _ = trained(step, 32, [batch], ghost, rate=rate)
    np.testing.assert_allclose(losses, [float(total) / batch], rtol=1e-5)
    np.testing.assert_allclose(top1, [correct / batch], rtol=1e-6)
    for ours, old, gradient in zip(
        step.model.trainable_variables, parameters, gradients, strict=True
    ):
        np.testing.assert_allclose(ours.numpy(), old.numpy() - rate * gradient / batch, atol=1e-5)


# In three lanes and on three replicas, ghost batches of 21 stay whole.
LAYOUTS = [
    (32, True, [(1, 128, 1), (1, 64, 2), (2, 64, 1)]),
    (21, True, [(1, 126, 3), (3, 21, 1)]),
    (21, False, [(1, 126, 3), (2, 63, 1)]),
]


@pytest.mark.parametrize(("ghost", "norm", "layouts"), LAYOUTS)
def test_no_layout_changes_what_mixed_examples_teach(cpus, ghost, norm, layouts):
    of = functools.partial(tiny, ghost=ghost) if norm else without_norm
    batch, found = 4 * ghost if ghost == 32 else 6 * ghost, []
    loss = TrainingLoss(Loss("sigmoid"), 0.1, class_weights=CLASS_WEIGHTS)
    for replicas, b, lanes in layouts:
        options = {"loss": loss, "lanes": lanes, "ghost_batch_size": ghost}
        step = step_on(strategy_of(cpus, replicas), of, **options)
        found.append([*trained(step, b, [batch] * 2 + [2 * batch], ghost), *weights(step)])
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


def without_norm():
    """The layers of `tiny` without batch norm."""
    model = tiny()
    layers = [layer for layer in model.layers if "normalization" not in layer.name]
    return tf.keras.Sequential([tf.keras.Input((6, 6, 1), dtype="uint8"), *layers])


@pytest.mark.parametrize(("b", "lanes", "wanted"), [(96, 2, 1), (128, 2, 2), (32, 4, 1)])
def test_lanes_hold_whole_ghost_batches_without_batch_norm_too(cpus, b, lanes, wanted):
    step = step_on(strategy_of(cpus, 1), without_norm, lanes=lanes, ghost_batch_size=32)
    seen = []
    whole = step.replica._gradient_function

    def counted(images, labels, position):
        seen.append(images.shape[0])
        return whole(images, labels, position)

    step.replica._gradient_function = counted
    images = tf.constant(IMAGES[:b])
    tf.function(lambda: step.replica.accumulate(images, LABELS[:b], tf.constant(0, tf.int64)))()
    assert seen == [b // wanted] * wanted


FLAGS = [
    *runs.SHORT,
    "--train_split=train[:800]",
    "--augment=medium,mixup,cutmix",
    "--loss=sigmoid",
    "--sigmoid_threshold=0.2",
    "--eval_split=test[:300]",
    "--epochs=4",
    "--max_batch_size=160",
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, fashion_mnist):
    path = tmp_path_factory.mktemp("mixed") / "run"
    return path, runs.train(path, *FLAGS).stdout


def test_a_run_says_what_it_mixes_and_what_counts(uninterrupted):
    _, output = uninterrupted
    assert "mixing: mixup with alpha 0.2 or cutmix with alpha 1, one drawn for each" in output
    assert "the top1 of training counts the label with the larger share" in output
    assert "loss: binary cross-entropy summed over classes; the target of a share" in output


def test_a_run_killed_and_resumed_ends_with_the_same_bits(uninterrupted, tmp_path):
    path, _ = uninterrupted
    process = runs.started(tmp_path / "killed", *FLAGS, runs.OFTEN)
    runs.kill_after(process, tmp_path / "killed", 10)
    runs.train(tmp_path / "killed", *FLAGS)
    assert runs.digest(tmp_path / "killed") == runs.digest(path)
    assert runs.points(tmp_path / "killed") == runs.points(path)


def test_an_export_keeps_the_loss_and_its_probabilities(uninterrupted, tmp_path, capsys):
    path, _ = uninterrupted
    folder = tmp_path / "export"
    status, _, error = done(capsys, "export", f"--model_dir={path}", f"--export_dir={folder}")
    assert status == 0, error
    assert json.loads((folder / "export.json").read_text())["loss"] == "sigmoid"
    found = []
    for source in (f"--model_dir={path}", f"--export_dir={folder}"):
        status, out, error = done(capsys, "evaluate", source, "--format=json", "--per_class")
        assert status == 0, error
        found.append(json.loads(out))
    wanted = runs.result(path)
    for each in found:
        assert each["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
        assert each["top1"] == wanted["top1"]
    picture = tmp_path / "1.png"
    Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)).save(picture)
    model = tf.saved_model.load(str(folder / "saved_model"))
    logits = model.serve(np.asarray(Image.open(picture))[None, :, :, None])[0].numpy()
    served = model.serve_images(tf.constant([picture.read_bytes()]))
    wanted = np.sort(1 / (1 + np.exp(-logits)))[::-1]
    np.testing.assert_allclose(served["probabilities"][0], wanted, rtol=1e-5)
    arguments = ("--top_k=10", "--format=json", str(picture))
    for source in (f"--model_dir={path}", f"--export_dir={folder}"):
        status, out, error = done(capsys, "predict", source, *arguments)
        assert status == 0, error
        np.testing.assert_allclose(json.loads(out)["probabilities"], wanted, rtol=1e-4)
