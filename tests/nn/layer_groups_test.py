"""Layers are grouped by the blocks of their names, and a block's rate follows from its depth."""

import keras
import pytest

from tests.nn.models.registry_test import make
from tests.support.models import Subclassed
from tests.support.steps import UPDATES, run, step_on, strategy_of, weights
from trainer.errors import UserError
from trainer.nn.layer_groups import factors, group, table
from trainer.nn.layer_paths import layer_paths, weight_paths


def test_blocks_of_a_wide_resnet():
    groups = group(list(layer_paths(make("wide_resnet_16_4"))))
    names = ["conv", *(f"group{g}_block{b}" for g in (1, 2, 3) for b in (1, 2)), "last", "logits"]
    assert [paths[0] for paths in groups] == [
        "conv",
        *(f"{name}_1_norm" for name in names[1:7]),
        "last_norm",
        "logits",
    ]
    for name, paths in zip(names, groups, strict=True):
        assert all(path.startswith(name) for path in paths)


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [("ResNet50", ["conv1_conv", "conv1_bn"], 18), ("MobileNetV2", ["Conv1"], 21)],
)
def test_blocks_of_applications(name, first, count):
    groups = group(list(layer_paths(getattr(keras.applications, name)(weights=None))))
    assert groups[0] == first
    assert groups[-1] == ["predictions"]
    assert len(groups) == count


def test_layers_without_block_names_keep_their_order():
    paths = [f"{kind}_{i}" for i in range(1, 9) for kind in ("conv2d", "batch_normalization")]
    assert group([*paths, "dense"]) == [*([path] for path in paths), ["dense"]]
    mobile = [
        f"conv_{kind}_{i}{end}" for i in (1, 2) for kind in ("dw", "pw") for end in ("", "_bn")
    ]
    assert group([*mobile, "conv_preds"]) == [
        *([f"conv_{kind}_{i}", f"conv_{kind}_{i}_bn"] for i in (1, 2) for kind in ("dw", "pw")),
        ["conv_preds"],
    ]


def test_at_most_24_groups_of_neighbours():
    paths = [f"block{i}_conv" for i in range(100)] + ["logits"]
    groups = group(paths)
    assert len(groups) == 24
    assert [path for each in groups for path in each] == paths
    assert {len(each) for each in groups} == {4, 5}


def test_factors_and_their_table():
    model = make("wide_resnet_10_1")
    rates = factors(model, 0.5)
    assert rates["logits"] == 1
    assert rates["last_norm"] == 0.5
    assert rates["group1_block1_conv2"] == rates["group1_block1_1_norm"] == 0.5**4
    assert rates["conv"] == 0.5**5
    lines = table(model, 0.5).splitlines()
    assert lines[1].split() == ["0.0312", "conv"]
    assert lines[2].split() == [
        *("0.0625", "group1_block1_1_norm", "to", "group1_block1_conv2"),
    ]
    assert len(lines) == 7
    assert table(model, 0.1).splitlines()[-1].startswith("warning: 2 of 6 groups have a factor")


def test_a_parameter_moves_by_its_factor(cpus):
    """One update of SGD without weight decay: the change is the factor times the usual one."""
    changes = []
    for decay in (1.0, 0.25):
        strategy = strategy_of(cpus, 2)
        step = step_on(strategy, optimizer="sgd", weight_decay=0.0, layer_decay=decay)
        before = weights(step)
        run(step, 32, UPDATES[:1])
        changes.append([a - b for a, b in zip(weights(step), before, strict=True)])
    rates = factors(step.model, 0.25)
    for path, usual, found in zip(weight_paths(step.model), *changes, strict=True):
        factor = 1.0 if "moving" in path else rates[path.rpartition("/")[0]]
        assert found == pytest.approx(factor * usual, rel=1e-4, abs=1e-7)
    assert set(rates.values()) == {0.25**2, 0.25, 1.0}


def test_a_subclassed_model_is_refused():
    inputs = keras.Input((28, 28, 1))
    model = keras.Model(inputs, Subclassed(5)(inputs))
    with pytest.raises(UserError, match=r"is unknown in .*, a Subclassed"):
        table(model, 0.5)
