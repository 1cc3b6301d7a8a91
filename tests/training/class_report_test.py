import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.data.in_memory import InMemoryDataset
from trainer.errors import UserError
from trainer.run_dir import class_evaluation
from trainer.training import class_report
from trainer.training.evaluation import Evaluator


def evaluator(cpus, labels, bias):
    """Evaluator of a model whose logits are `bias` for every image."""
    source = InMemoryDataset(
        np.zeros((len(labels), 2, 2, 1), np.uint8), np.asarray(labels), ("a", "b", "c"), "zeros"
    )
    model = keras.Sequential(
        [
            keras.Input((2, 2, 1), dtype="uint8"),
            keras.layers.Flatten(),
            keras.layers.Dense(len(bias), kernel_initializer="zeros"),
        ]
    )
    model.layers[-1].bias.assign(bias)
    return Evaluator(tf.distribute.OneDeviceStrategy(cpus[0]), model, source)


def test_unused_logits_are_named_and_classes_without_examples_are_listed(cpus, tmp_path):
    found = evaluator(cpus, [0, 0, 2], [0.0, 0.0, 0.0, 1.0])
    evaluation = found.evaluate()
    content = class_report.build(found, ("a", "b", "c"), 4, "none")
    assert [row["name"] for row in content["classes"]] == ["a", "b", "c", "unused_3"]
    assert content["without_support"] == ["b"]
    assert content["confusion"] == [[0, 3, 2], [2, 3, 1]]
    assert [each["index"] for each in content["most_wrong"]] == [0, 1, 2]
    assert content["calibration"]["ece"] == pytest.approx(np.e / (3 + np.e), rel=1e-6)
    whole = {"dataset": "zeros", "split": "test", "update": 1, "examples": 3}
    whole |= {"loss": evaluation.loss, "top1": evaluation.top1, "top5": evaluation.top5}
    class_evaluation.write(tmp_path, whole | content)
    assert class_evaluation.read(tmp_path) == whole | content


def test_outputs_that_are_not_finite_are_refused(cpus):
    found = evaluator(cpus, [0, 1], [0.0, float("nan"), 0.0])
    found.evaluate()
    with pytest.raises(UserError) as error:
        class_report.build(found, ("a", "b", "c"), 3, "none")
    line, remedy = str(error.value).splitlines()
    assert "not finite for 2 of 2 examples; the first has index 0" in line
    assert remedy.startswith("Name an earlier checkpoint")
