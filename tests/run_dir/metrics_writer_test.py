import json
import resource

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.run_dir.metrics import read
from trainer.run_dir.metrics_writer import MetricsWriter, add_image


def curve(folder, split, tag):
    events = EventAccumulator(str(folder / "tensorboard" / split))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]


def shown(folder, split="train"):
    """Returns the texts and the pictures of a split: tag, step and content."""
    events = EventAccumulator(str(folder / "tensorboard" / split))
    events.Reload()
    texts = [
        (tag, event.step, event.tensor_proto.string_val[0].decode())
        for tag in events.Tags()["tensors"]
        if events.SummaryMetadata(tag).plugin_data.plugin_name == "text"
        for event in events.Tensors(tag)
    ]
    pictures = [
        (tag, event.step, event.encoded_image_string)
        for tag in events.Tags()["images"]
        for event in events.Images(tag)
    ]
    return texts, pictures


def log(folder, updates, *, after=0):
    folder.mkdir(exist_ok=True)
    summaries = MetricsWriter(folder, update=after)
    for update in updates:
        summaries.write("train", update, update * 128, loss=1 / update, learning_rate=0.1)
        if update % 20 == 0:
            summaries.write("eval", update, update * 128, loss=2 / update, top1=0.5, top5=0.9)
    assert summaries.flush()
    return summaries


def test_points_are_in_both_records(tmp_path):
    log(tmp_path, range(10, 50, 10)).close()
    assert curve(tmp_path, "train", "loss") == [(10, 0.1), (20, 0.05), (30, 0.0333), (40, 0.025)]
    assert curve(tmp_path, "train", "schedule/learning_rate")[0] == (10, 0.1)
    assert curve(tmp_path, "eval", "top5") == [(20, 0.9), (40, 0.9)]
    point = read(tmp_path / "metrics.jsonl")[0]
    assert point["split"] == "train"
    assert (point["update"], point["position"]) == (10, 1280)


def test_a_resumed_run_neither_repeats_nor_lacks_a_point(tmp_path):
    log(tmp_path / "whole", range(10, 80, 10)).close()
    killed = log(tmp_path / "resumed", range(10, 60, 10))  # A kill does not close it.
    with open(tmp_path / "resumed" / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"split": "train", "upd')  # A line that the kill truncated.
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


@pytest.mark.parametrize("evaluated", [False, True])
def test_an_evaluation_that_the_checkpoint_lacks_is_dropped(tmp_path, evaluated):
    """A signal saved update 40 without its evaluation; a kill followed the resumed evaluation."""
    killed = log(tmp_path, [20, 30, 40])  # A kill does not close it.
    MetricsWriter(tmp_path, update=40, evaluated=evaluated).close()
    killed.close()
    points = [(point["split"], point["update"]) for point in read(tmp_path / "metrics.jsonl")]
    assert [update for split, update in points if split == "train"] == [20, 30, 40]
    assert [update for split, update in points if split == "eval"] == [20, 40][: 1 + evaluated]


def test_a_flipped_bit_is_left_out_or_harmless(tmp_path, logged):
    """The bit may be in a name, a number or a bracket, and the line may still be JSON."""
    log(tmp_path, [10, 20]).close()
    file = tmp_path / "metrics.jsonl"
    content = file.read_bytes()
    left_out = 0
    for i in range(content.index(b"\n")):
        file.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        logged.clear()
        again = MetricsWriter(tmp_path, update=10**9)
        again.close()
        left_out += len(logged)
        assert curve(tmp_path, "train", "loss")[-1] == (20, 0.05)
    assert left_out > 50


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_unwritten_points_are_written_later(tmp_path, logged):
    """The kernel limits the size of files, which fails a write as a full disk does."""
    summaries = MetricsWriter(tmp_path, update=0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, limits[1]))
    try:
        for update in range(1, 100):
            summaries.write("train", update, update, loss=1 / update)
        assert not summaries.flush()
        assert [point["update"] for point in read(tmp_path / "metrics.jsonl")] == [1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sum("metrics.jsonl cannot be written: File too large" in text for text in logged) == 1
    assert summaries.flush()
    summaries.write("train", 100, 100, loss=1 / 100)
    summaries.close()
    assert [p["update"] for p in read(tmp_path / "metrics.jsonl")] == list(range(1, 101))
    assert [step for step, _ in curve(tmp_path, "train", "loss")] == list(range(1, 101))


def test_flags_and_pictures_of_the_start_are_shown_once_after_each_resume(tmp_path):
    (tmp_path / "flags.txt").write_text("--epochs=2\n")
    first = MetricsWriter(tmp_path, update=0)
    first.keep_pictures(b"killed")
    first.close()
    second = MetricsWriter(tmp_path, update=0)  # There was no checkpoint yet.
    second.keep_pictures(b"picture")
    second.close()
    expected = [("flags", 0, "    --epochs=2\n")], [("augmented_pictures", 0, b"picture")]
    assert shown(tmp_path) == expected
    for _ in range(2):
        MetricsWriter(tmp_path, update=10).close()
        assert shown(tmp_path) == expected


def test_a_run_without_pictures_shows_its_flags(tmp_path):
    (tmp_path / "flags.txt").write_text("--epochs=2\n")
    MetricsWriter(tmp_path, update=10).close()
    assert shown(tmp_path) == ([("flags", 0, "    --epochs=2\n")], [])


def test_a_picture_that_cannot_be_kept_ends_no_run(tmp_path, logged):
    writer = MetricsWriter(tmp_path, update=10)
    (tmp_path / "augmented.png").mkdir()
    writer.keep_pictures(b"picture")
    writer.write("train", 11, 11, loss=1.0)
    writer.close()
    assert any("augmented.png is not written" in text for text in logged)
    assert curve(tmp_path, "train", "loss") == [(11, 1.0)]


def test_a_picture_is_added_to_the_curves_of_a_closed_writer(tmp_path):
    log(tmp_path, [20]).close()
    add_image(tmp_path / "tensorboard" / "eval", "confusion_matrix", 20, b"picture")
    assert shown(tmp_path, "eval") == ([], [("confusion_matrix", 20, b"picture")])
    assert curve(tmp_path, "eval", "top5") == [(20, 0.9)]
