"""Tests of texts and pictures as TensorBoard reads them from a run's logs."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.run_dir import event_files, summaries


def read(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_lines_are_shown_as_they_are(tmp_path):
    text = "--dataset=image_folder:a *b*\n--model=x\udcff\n"
    event_files.replace(tmp_path, [summaries.lines("flags", text)])
    found = read(tmp_path)
    assert found.PluginTagToContent("text").keys() == {"flags"}
    (event,) = found.Tensors("flags")
    (content,) = event.tensor_proto.string_val
    assert content.decode() == "    --dataset=image_folder:a *b*\n    --model=x\\udcff\n"


def test_a_picture_is_kept_byte_for_byte(tmp_path):
    event_files.replace(tmp_path, [summaries.image("some", b"\x89PNG")], step=3)
    (event,) = read(tmp_path).Images("some")
    assert (event.step, event.encoded_image_string) == (3, b"\x89PNG")
