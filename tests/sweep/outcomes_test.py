import json
import multiprocessing
import pathlib

import pytest

from trainer.errors import UserError
from trainer.sweep import outcomes
from trainer.sweep.outcomes import Outcome
from trainer.system.typed_json import DamagedError

POINTS = [{"seed": str(seed)} for seed in range(8)]


def test_ends_are_kept_and_further_points_join(tmp_path):
    outcomes.begin(tmp_path / "sweep", POINTS[:2])
    outcomes.record_outcome(tmp_path / "sweep", POINTS[1], Outcome(3, "the loss is nan"))
    outcomes.begin(tmp_path / "sweep", POINTS[1:3])
    ends = {"seed=0": Outcome(), "seed=1": Outcome(3, "the loss is nan"), "seed=2": Outcome()}
    assert outcomes.read(tmp_path / "sweep") == ends
    second = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["points"][1]
    assert second == {
        "folder": "seed=1",
        "flags": {"seed": "1"},
        "status": 3,
        "reason": "the loss is nan",
    }


def _note_often(path: pathlib.Path, own: list[dict[str, str]]) -> None:
    outcomes.begin(path, POINTS)
    for number in range(20):
        for point in own:
            outcomes.record_outcome(path, point, Outcome(number))


def test_processes_at_once_lose_nothing(tmp_path):
    processes = [
        multiprocessing.get_context("spawn").Process(
            target=_note_often, args=(tmp_path / "sweep", POINTS[i::4])
        )
        for i in range(4)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert outcomes.read(tmp_path / "sweep") == {f"seed={i}": Outcome(19) for i in range(8)}


@pytest.mark.parametrize("content", ["{", "[]", '{"points": [1]}', '{"points": [{}]}', "\xff"])
def test_a_damaged_file_is_put_aside_and_made_again(tmp_path, content):
    (tmp_path / "sweep.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(DamagedError, match=r"sweep.json is damaged: "):
        outcomes.read(tmp_path)
    said = []
    outcomes.begin(tmp_path, POINTS[:2], said.append)
    (line,) = said
    assert line.startswith(f"{tmp_path}/sweep.json is damaged: ")
    assert "it is now damaged-sweep.json, and a new one is made" in line
    assert (tmp_path / "damaged-sweep.json").read_bytes() == content.encode("latin-1")
    assert outcomes.read(tmp_path) == {"seed=0": Outcome(), "seed=1": Outcome()}


def test_a_folder_in_its_place_while_a_point_ends(tmp_path):
    outcomes.begin(tmp_path, POINTS[:1])
    (tmp_path / "sweep.json").unlink()
    (tmp_path / "sweep.json").mkdir()
    said = []
    outcomes.record_outcome(tmp_path, POINTS[0], Outcome(3, "the loss is nan"), said.append)
    assert "cannot be read: it is a folder" in said[0]
    assert outcomes.read(tmp_path) == {"seed=0": Outcome(3, "the loss is nan")}


def test_something_else_is_not_taken(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="something that is no sweep"):
        outcomes.begin(tmp_path, POINTS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("status", [None, 0, 74, 75, 76, 137])
def test_what_goes_on_or_has_ended_has_not_failed(status):
    assert not Outcome(status).failed


@pytest.mark.parametrize("status", [1, 2, 3])
def test_what_would_end_the_same_again_has_failed(status):
    assert Outcome(status).failed
