import json

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.run_dir.summaries import Summaries, read


def curve(folder, split, tag):
    events = EventAccumulator(str(folder / "tensorboard" / split))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]


def log(folder, updates, *, after=0):
    folder.mkdir(exist_ok=True)
    summaries = Summaries(folder, update=after)
    for update in updates:
        summaries.write("train", update, update * 128, loss=1 / update, learning_rate=0.1)
        if update % 20 == 0:
            summaries.write("eval", update, update * 128, loss=2 / update, top1=0.5, top5=0.9)
    summaries.flush()
    return summaries


def test_points_are_in_both_records(tmp_path):
    log(tmp_path, range(10, 50, 10)).close()
    assert curve(tmp_path, "train", "loss") == [(10, 0.1), (20, 0.05), (30, 0.0333), (40, 0.025)]
    assert curve(tmp_path, "train", "schedule/learning_rate")[0] == (10, 0.1)
    assert curve(tmp_path, "eval", "top5") == [(20, 0.9), (40, 0.9)]
    point = read(tmp_path / "metrics.jsonl")[0]
    assert point["split"] == "train"
    assert (point["update"], point["position"]) == (10, 1280)


def test_a_resumed_run_has_no_point_twice_and_none_missing(tmp_path):
    log(tmp_path / "whole", range(10, 80, 10)).close()
    killed = log(tmp_path / "resumed", range(10, 60, 10))  # never closed
    with open(tmp_path / "resumed" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"split": "train", "upd')  # a line that the kill cut short
    log(tmp_path / "resumed", range(40, 80, 10), after=33).close()
    killed.close()
    for split in ("train", "eval"):
        assert curve(tmp_path / "resumed", split, "loss") == curve(
            tmp_path / "whole", split, "loss"
        )

    def points(name):
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k != "time"} for line in lines]

    assert points("resumed") == points("whole")
