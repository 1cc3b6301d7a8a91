import pytest

from trainer.run_dir import training_data
from trainer.run_dir.training_data import TrainingData

DATA = TrainingData(60_000, (28, 28, 3), 10, (72.91172790527344, 0.1, 1e-7), (1.0, 90.5, 3.0))


def test_round_trip(tmp_path):
    assert training_data.read(tmp_path) is None
    training_data.keep(tmp_path, DATA)
    assert training_data.read(tmp_path) == DATA


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"examples": 1}', "\0", "3"])
def test_what_is_damaged_is_not_there(tmp_path, content):
    (tmp_path / "training_data.json").write_text(content)
    assert training_data.read(tmp_path) is None
