"""--profile_updates: the stretches that it makes, and the profile of a real run."""

import pytest

from tests.support.configs import parsed
from tests.support.runs import SHORT, digest, train
from trainer.config import number_range
from trainer.errors import UserError
from trainer.training.profiling import UpdateProfiler


@pytest.mark.parametrize(
    "text", ["", "5", "0:3", "4:3", "1:", ":2", "a:b", "1:2:3", "1.5:2", "-1:2"]
)
def test_a_range_that_is_not_one_is_rejected(text):
    with pytest.raises(UserError, match="must be the first and the last update, such as 100:110"):
        parsed(f"--profile_updates={text}")


def test_stretches_end_where_the_recording_starts_and_stops(tmp_path):
    profiler = UpdateProfiler(number_range.parse("5:7"), tmp_path)
    assert [profiler.most_updates(update) for update in range(9)] == [
        *(4, 3, 2, 1),
        *(3, 2, 1),
        *(None, None),
    ]
    assert UpdateProfiler(None, tmp_path).most_updates(3) is None


def test_the_first_update_can_be_recorded(tmp_path):
    assert UpdateProfiler(number_range.parse("1:1"), tmp_path).most_updates(0) == 1


def test_a_profile_that_cannot_be_written_is_said_and_ends_nothing(tmp_path, logged):
    (tmp_path / "file").touch()
    with UpdateProfiler(number_range.parse("1:2"), tmp_path / "file" / "profile") as profiler:
        for update in range(3):
            profiler.before(update)
            profiler.after(update + 1)
    (line,) = logged
    assert line.startswith(f"{tmp_path}/file/profile lacks the profile: ")


def test_the_updates_that_were_recorded_are_named(tmp_path, logged):
    with UpdateProfiler(number_range.parse("100:110"), tmp_path / "profile") as profiler:
        for update in (104, 105):
            profiler.before(update)
            profiler.after(update + 1)
    (line,) = logged
    assert line.startswith("the profile of updates 105 to 106 is in ")


def test_a_run_is_profiled_and_learns_the_same(uninterrupted, tmp_path):
    whole, _ = uninterrupted
    profiled = tmp_path / "profiled"
    # The range crosses a logged point.
    ended = train(profiled, *SHORT, "--profile_updates=8:12")
    assert "the profile of updates 8 to 12 is in" in ended.stdout
    (trace,) = (profiled / "tensorboard" / "profile").glob("plugins/profile/*/*.xplane.pb")
    content = trace.read_bytes()
    assert b"Conv2D" in content
    assert digest(profiled) == digest(whole)
    assert "profile_updates" not in (profiled / "flags.txt").read_text()
    # A call that does not train the range says so.
    short = tmp_path / "short"
    ended = train(short, *SHORT, "--stop_at_epoch=0.1", "--profile_updates=150:160")
    text = "--profile_updates=150:160: this call has not trained any of these updates"
    assert text in ended.stdout
    assert not (short / "tensorboard" / "profile").exists()
