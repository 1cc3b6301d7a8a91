"""sweep.json in both services: conflicts, lost answers, damage and folders of something else."""

import threading

import pytest

from trainer.errors import UserError
from trainer.sweep.outcomes import Content, Outcome
from trainer.sweep.shared_outcomes import SharedOutcomes

POINTS = [{"seed": str(seed)} for seed in range(8)]


def shared(place):
    return SharedOutcomes(place.connect(), place.url)


def test_the_first_precision_stays(place):
    assert not shared(place).exists()
    assert shared(place).begin(POINTS[:1], None).precision is None
    assert shared(place).begin(POINTS[:2], "bfloat16").precision == "bfloat16"
    assert shared(place).begin(POINTS[1:3], "float32").precision == "bfloat16"
    assert [*shared(place).read().entries] == ["seed=0", "seed=1", "seed=2"]
    assert shared(place).exists()


def test_clients_at_the_same_time_lose_no_outcome(place):
    points = [{"seed": str(seed)} for seed in range(24)]

    def record(own):
        client = shared(place)
        client.begin(points, "float32")
        for point in own:  # A second record would hide that the first was lost.
            client.change(lambda content, p=point: content.record(p, Outcome(0)))

    threads = [threading.Thread(target=record, args=(points[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert shared(place).read().outcomes() == {f"seed={i}": Outcome(0) for i in range(24)}


@pytest.mark.parametrize(
    ("there", "late", "kept"),
    [
        (Outcome(0), Outcome(75, "away"), True),
        (Outcome(0), Outcome(2, "wrong"), True),
        (Outcome(2, "wrong"), Outcome(75, "away"), True),
        (Outcome(2, "wrong"), Outcome(0), False),
        (Outcome(2, "wrong"), Outcome(3, "nan"), False),
        (Outcome(75, "stopped"), Outcome(137, "killed"), False),
        (Outcome(), Outcome(75, "away"), False),
    ],
)
def test_a_late_outcome_does_not_replace_a_more_final_one(there, late, kept):
    content = Content()
    content.record(POINTS[0], there)
    content.record_late(POINTS[0], late)
    assert content.outcomes()["seed=0"] == (there if kept else late)


def test_the_precision_survives_a_damaged_object(place, logged):
    client = shared(place)
    client.begin(POINTS[:1], "bfloat16")
    place.connect().delete("sweep.json")
    place.connect().create("sweep.json", b"{")
    client.change(lambda content: content.record(POINTS[0], Outcome(0)))
    assert shared(place).begin(POINTS[:1], "float32").precision == "bfloat16"


def test_a_lost_answer_is_harmless(place):
    place.proxy.rule = lambda request: "after" if request.number in (1, 3, 5, 7) else None
    shared(place).change(lambda content: content.add(POINTS[:2], "float32"))
    shared(place).change(lambda content: content.record(POINTS[1], Outcome(3, "nan")))
    found = shared(place).read()
    assert found.outcomes() == {"seed=0": Outcome(), "seed=1": Outcome(3, "nan")}
    assert found.precision == "float32"
    assert len([r for r in place.proxy.requests if r.writes]) > 2  # Some were repeated.


def test_what_does_not_change_is_not_written(place):
    shared(place).begin(POINTS, None)
    place.proxy.requests.clear()
    shared(place).begin(POINTS, None)
    assert not [request for request in place.proxy.requests if request.writes]


@pytest.mark.parametrize("name", ["lease.json", "seed=0/thesis.txt"])
def test_a_folder_of_something_else_is_refused(place, name):
    place.connect().create(name, b"")
    with pytest.raises(UserError, match="exists and is not the folder of a sweep"):
        shared(place).begin(POINTS, None)
    assert place.connect().names("") == [name]


@pytest.mark.parametrize("content", [b'{"points": [{}]}', b"\xff"])
def test_a_damaged_object_is_kept_aside_and_replaced(place, content, logged):
    place.connect().create("sweep.json", content)
    assert shared(place).read() == Content()
    assert shared(place).begin(POINTS[:1], None).outcomes() == {"seed=0": Outcome()}
    (line,) = logged
    assert line.startswith(f"{place.url}/sweep.json is damaged: ")
    assert place.connect().read("damaged-sweep.json")[0] == content
    assert [*shared(place).read().entries] == ["seed=0"]
