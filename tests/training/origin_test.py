from types import SimpleNamespace

import pytest

from tests.support.configs import parsed
from trainer.errors import UserError
from trainer.run_dir.directory import DamagedRunError
from trainer.schedule.trajectory import from_config
from trainer.training import origin

CHIEF, OTHER = SimpleNamespace(chief=True), SimpleNamespace(chief=False)


@pytest.mark.parametrize("flag", ["--init_from", "--fork_from"])
def test_only_the_chief_of_a_new_run_asks_for_another_run(tmp_path, flag):
    config = parsed(f"{flag}={tmp_path}/absent")
    with pytest.raises(UserError, match="absent"):
        origin.find(config, tmp_path, CHIEF)
    assert origin.find(config, tmp_path, OTHER) is None
    (tmp_path / "checkpoints" / "000000001").mkdir(parents=True)
    assert origin.find(config, tmp_path, CHIEF) is None


def test_initial_parameters_are_an_origin(tmp_path):
    assert origin.find(parsed(), tmp_path, CHIEF) == origin.Origin()


def test_a_fork_that_lacks_its_record_does_not_resume(tmp_path):
    """Without the record, its average would resume with another start."""
    config = parsed("--fork_from=a@newest")
    with pytest.raises(DamagedRunError, match=r"forked_from\.json is missing"):
        origin.lineage_of(None, config, tmp_path, from_config(config, 60_000, 1))


def test_a_run_that_is_not_a_fork_has_no_record(tmp_path):
    """A fork that was killed as it began leaves one to the run that begins in its place."""
    record = tmp_path / "forked_from.json"
    record.write_text("{}")
    config = parsed()
    assert origin.lineage_of(None, config, tmp_path, from_config(config, 60_000, 1)) is None
    assert not record.exists()
