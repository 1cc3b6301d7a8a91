import copy
import csv
import json
import re

import pytest

from tests.support.class_evaluations import CONTENT
from tests.support.hostile import EVERY, VALUES, put
from trainer.run_dir import class_evaluation
from trainer.system.output import OutputError
from trainer.system.typed_json import DamagedError


def test_what_is_written_is_read(tmp_path):
    assert class_evaluation.read(tmp_path) is None
    for _ in range(2):
        class_evaluation.write(tmp_path, CONTENT)
    assert class_evaluation.read(tmp_path) == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation.csv", "evaluation.json"]


def test_the_table_has_a_row_for_each_class(tmp_path):
    class_evaluation.write(tmp_path, CONTENT)
    with open(tmp_path / "evaluation.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("class", "support", "predicted", "correct", "precision", "recall", "f1"),
        *("mistaken_for", "mistakes"),
    ]
    assert [row["class"] for row in rows] == [each["name"] for each in CONTENT["classes"]]
    assert rows[0]["mistaken_for"] == CONTENT["classes"][1]["name"]
    assert float(rows[0]["recall"]) == CONTENT["classes"][0]["recall"]
    assert [rows[2][name] for name in ("support", "precision", "recall", "f1")] == ["0", "", "", ""]


@pytest.mark.parametrize("name", ["evaluation.json", "evaluation.csv"])
def test_a_file_that_cannot_be_written_is_named_and_the_folder_stays_clean(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(OutputError) as error:
        class_evaluation.write(tmp_path, CONTENT)
    assert error.value.status == 1
    assert f"{tmp_path}/evaluation.json cannot be written" in str(error.value).splitlines()[0]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def read_or_reason(folder):
    """Returns the content, or None and the damage."""
    try:
        return class_evaluation.read(folder), ""
    except DamagedError as error:
        return None, error.reason


def places(value, place=()):
    """Yields the place of each value inside `value`, as a list of keys."""
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(min(1, len(value))):
            yield (*place, key)
            yield from places(value[key], (*place, key))


# The report does not use the path of the checkpoint, which is not checked.
CHECKED = [place for place in places(CONTENT) if place != ("checkpoint",)]


@pytest.mark.parametrize("place", CHECKED, ids=lambda place: ".".join(map(str, place)))
def test_an_impossible_value_is_damage_or_read_as_it_is(tmp_path, place):
    for value in VALUES.values():
        content = copy.deepcopy(CONTENT)
        inner = content
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = "HERE"
        (tmp_path / "evaluation.json").write_text(json.dumps(content).replace('"HERE"', value))
        found, reason = read_or_reason(tmp_path)
        if found is None:
            assert str(place[0]) in reason or re.match("it (is|has)", reason)
            continue
        for key in place:
            found = found[key]
        assert found == pytest.approx(json.loads(value), nan_ok=True)


@pytest.mark.parametrize("what", EVERY)
def test_other_contents_are_damage(tmp_path, what):
    put(tmp_path / "evaluation.json", what)
    with pytest.raises((DamagedError, OSError)):
        class_evaluation.read(tmp_path)


def test_an_index_that_names_no_class_is_damage(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["confusion"].append([0, len(content["classes"]), 1])
    (tmp_path / "evaluation.json").write_text(json.dumps(content))
    with pytest.raises(DamagedError, match=r"confusion\[4\] has an index"):
        class_evaluation.read(tmp_path)
