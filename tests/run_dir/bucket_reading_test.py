"""Local copies of runs in buckets, for commands that read runs."""

import pathlib

import pytest

from tests.support.configs import parsed
from tests.support.mirrors import content, write
from trainer.errors import UserError
from trainer.run_dir.bucket_reading import local_runs
from trainer.run_dir.mirror import Mirror


def copied(place, folder):
    """A run in `folder`, copied to the bucket."""
    write(folder, 1)
    Mirror(place.connect(), folder, 1).copy()
    return folder


def test_a_later_call_removes_what_a_killed_call_left(place, tmp_path):
    run = copied(place, tmp_path / "run")
    left = tmp_path / "cache" / "runs" / ".read-abcd1234"
    (left / "new" / "x" / "checkpoints").mkdir(parents=True)
    (left / "owner").touch()
    config = parsed(f"--model_dir={place.url}", f"--cache_dir={tmp_path}/cache", command="evaluate")
    with local_runs("evaluate", config) as local:
        assert content(tmp_path / "cache" / "runs") != {}
        assert not left.exists()
        assert {*content(run)} == {*content(pathlib.Path(local.model_dir))}
    assert content(tmp_path / "cache") == {}


@pytest.mark.parametrize(
    ("command", "flags"), [("evaluate", []), ("evaluate", ["--per_class"]), ("export", [])]
)
def test_a_mistyped_url_is_refused_and_leaves_nothing(place, tmp_path, command, flags):
    flags = [f"--model_dir={place.url}", f"--cache_dir={tmp_path}/cache", *flags]
    with (
        pytest.raises(UserError, match=f"^{place.url} has no run: name the folder of a run"),
        local_runs(command, parsed(*flags, command=command)),
    ):
        pass
    assert place.connect().names("") == []
    assert content(tmp_path) == {}


def test_a_report_leaves_out_a_sweep_that_is_deleted_meanwhile(place, tmp_path):
    copied(place, tmp_path / "run")
    place.connect().create("sweep.json", b"{}")
    place.connect().create("lease.json", b"{}")

    def rule(request):
        if request.method == "GET" and request.path.endswith("sweep.json"):
            place.proxy.rule = lambda request: None
            place.connect().delete("sweep.json")

    place.proxy.rule = rule
    config = parsed(place.url, f"--cache_dir={tmp_path}/cache", command="report")
    with local_runs("report", config) as local:
        assert {*content(pathlib.Path(*local.runs))} == {"flags.txt", "metrics.jsonl"}
