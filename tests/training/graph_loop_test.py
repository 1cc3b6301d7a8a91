"""Loops of traced functions; and AutoGraph, which is slow, converts no function of the program."""

import ast
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.autograph.pyct import transpiler

from tests.support.steps import IMAGES, step_on, strategy_of
from trainer.config import augment_list
from trainer.data.in_memory import InMemoryDataset
from trainer.data.pipeline import ExampleStream, training
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch
from trainer.training.evaluation import Evaluator
from trainer.training.graph_loop import repeat


def test_repeat_passes_on_the_values():
    @tf.function(autograph=False)
    def fibonacci(count):
        sequence = tf.TensorArray(tf.int32, count)
        *_, sequence = repeat(
            count, lambda i, a, b, found: (b, a + b, found.write(i, a)), 1, 1, sequence
        )
        return sequence.stack()

    assert fibonacci(tf.constant(6)).numpy().tolist() == [1, 1, 2, 3, 5, 8]
    assert fibonacci(tf.constant(0)).shape == (0,)


@pytest.mark.parametrize("replicas", [1, 2])
def test_training_and_evaluation_are_not_converted(cpus, monkeypatch, replicas):
    converted = []
    convert = transpiler.PyToPy.transform_function

    def noted(self, function, context):
        converted.append(function)
        return convert(self, function, context)

    monkeypatch.setattr(transpiler.PyToPy, "transform_function", noted)
    labels = np.arange(len(IMAGES)) % 3
    images = InMemoryDataset(IMAGES, labels, ("a", "b", "c"), "random")
    step = step_on(strategy_of(cpus, replicas), lanes=2, ghost_batch_size=16)
    stream = ExampleStream(images, augment_list.parse("medium"), 0)
    local = range(replicas)
    batches = training(
        stream, position=0, micro_batch_size=32, replicas=replicas, local_replicas=local
    )
    step.run(iter(batches), Stretch(0, (Setting(128, 0.1, 0.9),), Layout(replicas, 32, 4)))
    Evaluator(step.strategy, step.model, images).evaluate()
    assert not converted


def test_each_traced_function_of_the_program_turns_autograph_off():
    for path in pathlib.Path("trainer").glob("**/*.py"):
        text = path.read_text(encoding="utf-8")
        nodes = [*ast.walk(ast.parse(text))] if "tf.function" in text else []
        names = [n for n in nodes if isinstance(n, ast.Attribute) and n.attr == "function"]
        traced = [n for n in names if isinstance(n.value, ast.Name) and n.value.id == "tf"]
        calls = [n for n in nodes if isinstance(n, ast.Call) and n.func in traced]
        off = [n for n in calls if any(k.arg == "autograph" for k in n.keywords)]
        assert len(traced) == len(off), path
