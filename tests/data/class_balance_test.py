"""Weights have mean 1 over the training set; files of weights are checked by class name."""

import json

import pytest

from tests.support.configs import done, parsed
from trainer.data import class_balance
from trainer.errors import UserError

COUNTS = {"cat": 100, "dog": 1, "owl": 19}


@pytest.mark.parametrize("counts", [COUNTS, {"a": 7}, {"a": 1, "b": 6999}], ids=str)
def test_balanced_weights_give_each_class_the_same_sum(counts):
    weights = class_balance.class_weights(parsed("--class_weights=balanced"), counts)
    examples, classes = sum(counts.values()), len(counts)
    assert weights == pytest.approx([examples / (classes * n) for n in counts.values()])
    sums = [w * n for w, n in zip(weights, counts.values(), strict=True)]
    assert sum(sums) / examples == pytest.approx(1)


@pytest.mark.parametrize(
    "name, text",
    [
        ("w.json", '{"owl": 3, "cat": 1.5, "dog": 30}'),
        ("w.csv", "class,weight\ncat,1.5\nowl,3\ndog,3e1\n"),
        ("W.CSV", "\ufeffWeight;Label\r\n1.5;cat\r\n3;owl\r\n30;dog\r\n"),
    ],
)
def test_weights_of_a_file_are_scaled_to_mean_1(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    weights = class_balance.class_weights(parsed(f"--class_weights={tmp_path}/{name}"), COUNTS)
    mean = (100 * 1.5 + 1 * 30 + 19 * 3) / 120
    assert weights == pytest.approx([1.5 / mean, 30 / mean, 3 / mean])


def test_without_the_flag_there_are_no_weights():
    assert class_balance.class_weights(parsed(), COUNTS) is None
    assert class_balance.described(parsed(), COUNTS) == []


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("w.json", '{"cat": 1, "dog": 1}', "missing owl; unknown none"),
        ("w.json", '{"cat": 1, "dog": 1, "owl": 1, "Owl": 1}', "missing none; unknown Owl"),
        ("w.json", '{"cat": 0, "dog": 1, "owl": 1}', "w.json is damaged: 'cat' is 0, not a number"),
        ("w.json", '{"cat": 1, "dog": 1, "owl": 1, "cat": 9}', "cat is given twice"),
        ("w.json", "[1, 1, 1]", "w.json is damaged: it is"),
        ("w.csv", "class,weight\ncat,1\ncat,2\n", "w.csv line 3: cat has two weights"),
        ("w.csv", "class,weight\ncat,nan\n", "w.csv line 2: nan is not a number from 1e-09 to 1e"),
        ("w.csv", "class,weight\ncat,x\n", "w.csv line 2: x is not a number"),
        ("w.csv", "class,number\ncat,1\n", "line 1: no column holds the weight"),
        ("w.txt", "cat 1\n", "w.txt is not balanced, and does not end in .json or .csv"),
    ],
)
def test_mistakes_in_files_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError) as refused:
        class_balance.class_weights(parsed(f"--class_weights={tmp_path}/{name}"), COUNTS)
    assert message in str(refused.value)
    assert len(str(refused.value).splitlines()) == 2


def test_a_missing_file_is_refused_even_if_the_classes_are_not_known(tmp_path):
    config = parsed(f"--class_weights={tmp_path}/w.json")
    for counts in (None, COUNTS):
        with pytest.raises(UserError, match=r"w\.json cannot be read: No such file"):
            class_balance.described(config, counts)


@pytest.mark.parametrize("flag", ["--class_weights=balanced", "--sampling=balanced"])
def test_a_class_without_examples_cannot_be_balanced(flag):
    with pytest.raises(UserError, match=rf"{flag} needs .* none of dog\.\nAdd"):
        class_balance.described(parsed(flag), {"cat": 3, "dog": 0})


def test_weights_say_what_they_do_to_the_noise():
    """The mean squared weight is N/C² Σ 1/N_c: 101/4 · 1.01."""
    (line,) = class_balance.described(parsed("--class_weights=balanced"), {"cat": 100, "dog": 1})
    assert line == (
        "--class_weights=balanced: weights 0.505 (cat) to 50.5 (dog), of mean 1; g keeps its "
        "formula, for the weighted loss. The mean squared weight is 25.5: if all examples' "
        "gradients are equally noisy, a batch of B is as noisy as one of B/25.5 without weights"
    )
    (line,) = class_balance.described(parsed("--class_weights=balanced"), None)
    assert line.startswith("--class_weights=balanced: weights of mean 1 over the training set; g ")


def test_sampling_says_how_often_examples_come():
    (line,) = class_balance.described(parsed("--sampling=balanced"), {"cat": 100, "dog": 1})
    assert "0.505 (cat) to 50.5 (dog) times an epoch; N, epoch and g are those" in line
    (line,) = class_balance.described(parsed("--sampling=balanced"), None)
    assert line.startswith("--sampling=balanced: each class equally often; N, epoch and g are")


def test_plan_states_both(tmp_path, capsys):
    for label, count in (("cat", 60), ("dog", 12)):
        (tmp_path / "train" / label).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "train" / label / f"{number}.jpg").touch()
    flags = ("plan", f"--dataset=image_folder:{tmp_path}", "--initial_batch_size=32")
    _, out, _ = done(capsys, *flags, "--class_weights=balanced")
    assert "weights 0.6 (cat) to 3 (dog), of mean 1; g keeps its formula" in out
    _, out, _ = done(capsys, *flags, "--sampling=balanced")
    assert "0.6 (cat) to 3 (dog) times" in out
    (tmp_path / "w.json").write_text(json.dumps({"cat": 1}))
    status, _, error = done(capsys, *flags, f"--class_weights={tmp_path}/w.json", "--format=json")
    assert (status, "missing dog; unknown none" in error) == (2, True)


@pytest.mark.parametrize(
    "more, message",
    [
        (["--class_weights=balanced"], "would both correct the frequency of the classes"),
        (["--order_version=1"], "cannot have --order_version=1"),
    ],
)
def test_flags_that_exclude_balanced_sampling(more, message):
    with pytest.raises(UserError, match=message):
        parsed("--sampling=balanced", *more)
