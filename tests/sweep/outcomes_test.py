import json
import multiprocessing
import pathlib
import resource

import pytest

from trainer.errors import UserError
from trainer.sweep import grid, outcomes, runner
from trainer.sweep.outcomes import Content, Outcome
from trainer.system.typed_json import DamagedError

POINTS = [{"seed": str(seed)} for seed in range(8)]


def test_begin_keeps_outcomes_and_adds_points(tmp_path):
    outcomes.begin(tmp_path / "sweep", POINTS[:2])
    outcomes.record_outcome(tmp_path / "sweep", POINTS[1], Outcome(3, "the loss is nan"))
    outcomes.begin(tmp_path / "sweep", POINTS[1:3])
    expected = {"seed=0": Outcome(), "seed=1": Outcome(3, "the loss is nan"), "seed=2": Outcome()}
    assert outcomes.read(tmp_path / "sweep") == expected
    second = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"][1]
    assert second == {
        "folder": "seed=1",
        "flags": {"seed": "1"},
        "status": 3,
        "reason": "the loss is nan",
    }


def test_the_precision_is_chosen_once_when_a_point_asks_for_it(tmp_path):
    path = tmp_path / "sweep"
    assert outcomes.begin(path, POINTS[:1]) is None
    assert outcomes.begin(path, POINTS[:1], "bfloat16") == "bfloat16"
    outcomes.record_outcome(path, POINTS[0], Outcome(0))
    assert outcomes.begin(path, POINTS[1:2], "float32") == "bfloat16"
    assert outcomes.begin(path, POINTS) == "bfloat16"


def test_a_sweep_older_than_the_precision_is_in_float32(tmp_path):
    path = tmp_path / "sweep"
    outcomes.begin(path, POINTS[:1])
    content = json.loads((path / "sweep.json").read_text())
    del content["precision"]
    (path / "sweep.json").write_text(json.dumps(content))
    assert outcomes.begin(path, POINTS, "bfloat16") == "float32"


def _record_often(path: pathlib.Path, points: list[dict[str, str]]) -> None:
    outcomes.begin(path, POINTS)
    for number in range(20):
        for point in points:
            outcomes.record_outcome(path, point, Outcome(number))


def test_concurrent_processes_lose_no_outcome(tmp_path):
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=_record_often, args=(tmp_path / "sweep", POINTS[i::4])
        )
        for i in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert outcomes.read(tmp_path / "sweep") == {f"seed={i}": Outcome(19) for i in range(8)}


def test_a_sweep_that_another_process_begins_meanwhile_is_joined(tmp_path, monkeypatch):
    """The other one makes sweep.json between two looks at the folder."""
    tmp_path.joinpath("sweep").mkdir()
    empty = outcomes._empty

    def begun_meanwhile(path):
        monkeypatch.setattr(outcomes, "_empty", empty)
        outcomes.begin(path, POINTS[:1])
        return empty(path)

    monkeypatch.setattr(outcomes, "_empty", begun_meanwhile)
    outcomes.begin(tmp_path / "sweep", POINTS[1:2])
    assert {*outcomes.read(tmp_path / "sweep")} == {"seed=0", "seed=1"}


@pytest.mark.parametrize("content", ["{", "[]", '{"points": [1]}', '{"points": [{}]}', "\xff"])
def test_a_damaged_file_is_renamed_and_replaced(tmp_path, content, logged):
    (tmp_path / "sweep.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DamagedError, match=r"sweep.json is damaged: "):
        outcomes.read(tmp_path)
    outcomes.begin(tmp_path, POINTS[:2])
    (line,) = logged
    assert line.startswith(f"{tmp_path}/sweep.json is damaged: ")
    assert "renamed it to damaged-sweep.json; a new one is made" in line
    assert (tmp_path / "damaged-sweep.json").read_bytes() == content.encode("latin-1")
    assert outcomes.read(tmp_path) == {"seed=0": Outcome(), "seed=1": Outcome()}


def test_a_damaged_file_is_replaced_although_the_first_attempt_finds_a_full_disk(tmp_path, logged):
    """The kernel limits the size of files, which fails a write as a full disk does."""
    outcomes.begin(tmp_path, POINTS[:1])
    (tmp_path / "seed=0").mkdir()
    (tmp_path / "sweep.json").write_text("{")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(OSError, match=r"sweep\.json"):
            outcomes.record_outcome(tmp_path, POINTS[0], Outcome(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    outcomes.begin(tmp_path, POINTS[:1])
    assert outcomes.read(tmp_path) == {"seed=0": Outcome()}
    assert (tmp_path / "damaged-sweep.json").read_text() == "{"
    assert len(logged) == 1


def failed(count, reason):
    """A sweep of `count` points, which all have failed."""
    content = Content()
    for seed in range(count):
        content.record({"seed": str(seed)}, Outcome(2, reason))
    return content


def test_long_reasons_of_the_largest_sweep_are_read_again(tmp_path):
    content = failed(grid.MOST_POINTS, "é" * 300)
    outcomes.replace(tmp_path, content)
    assert outcomes.read(tmp_path) == content.outcomes()
    longest = "\U0001f600" * (2 * runner._LONGEST_LINE)  # JSON escapes each letter with 12 bytes.
    assert grid.MOST_POINTS * len(failed(1, longest).encoded()) < outcomes._MOST_BYTES


def test_a_folder_named_sweep_json_is_renamed_when_an_outcome_is_recorded(tmp_path, logged):
    outcomes.begin(tmp_path, POINTS[:1])
    (tmp_path / "sweep.json").unlink()
    (tmp_path / "sweep.json").mkdir()
    outcomes.record_outcome(tmp_path, POINTS[0], Outcome(3, "the loss is nan"))
    assert "cannot be read: it is a folder" in logged[0]
    assert outcomes.read(tmp_path) == {"seed=0": Outcome(3, "the loss is nan")}


def test_a_folder_with_other_files_is_rejected(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="exists and is not the folder of a sweep"):
        outcomes.begin(tmp_path, POINTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("status", [None, 0, 74, 75, 76, 137])
def test_finished_and_resumable_statuses_are_not_failures(status):
    assert not Outcome(status).failed


@pytest.mark.parametrize("status", [1, 2, 3])
def test_other_statuses_are_failures(status):
    assert Outcome(status).failed
