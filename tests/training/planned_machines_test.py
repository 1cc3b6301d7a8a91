"""The predicted time of a run on other machines, as `plan` prints it."""

import json

import pytest

from tests.support.configs import parsed
from trainer.commands import plan
from trainer.errors import UserError

# Ghost batches of 32, and 60,000 examples.
FASHION = "--flagfile=flags/fashion_mnist_grow.flags"
HOSTS = (
    "--plan_replicas=4",
    "--plan_hosts=2",
    "--plan_examples_per_second=1000",
    "--plan_parameters=1000000",
)
WORKER = (
    "--plan_examples_per_second=1000",
    "--plan_parameters=5000000",
    "--plan_link_latency=0",
    "--plan_link_bandwidth=3",
)
TEN_MEGABYTES_A_SECOND = ("--plan_link_bandwidth=0.08", "--plan_link_latency=1000")


def test_the_cost_on_several_hosts(capsys):
    assert plan.run(parsed(FASHION, "--format=json", *HOSTS, *TEN_MEGABYTES_A_SECOND)) == 0
    found = json.loads(capsys.readouterr().out)
    for phase in found["phases"]:
        # 4 MB in 2 steps of 2 MB, 1 ms each besides.
        seconds = phase["batch_size"] / 4 / 1000 + 0.4 + 0.002
        assert phase["update_seconds"] == pytest.approx(seconds)
        assert phase["communication_share"] == pytest.approx(0.402 / seconds)
        assert phase["bytes_per_example"] == pytest.approx(4e6 / phase["batch_size"])
        assert 4 * phase["micro_batch_size"] * phase["accumulation"] == phase["batch_size"]
    assert found["seconds"] == pytest.approx(sum(phase["seconds"] for phase in found["phases"]))
    alone = sum(phase["updates"] * phase["batch_size"] for phase in found["phases"]) / 1000
    assert found["efficiency"] == pytest.approx(alone / 4 / found["seconds"])
    assert found["half_communication_batch_size"] == 1608
    assert found["largest_paying_batch_size"] == 9 * 1608
    assert (found["replicas"], found["hosts"]) == (4, 2)


def test_the_cost_in_the_table(capsys):
    plan.run(parsed(FASHION, *HOSTS, *TEN_MEGABYTES_A_SECOND))
    header, first, *_ = lines = capsys.readouterr().out.splitlines()
    assert header.endswith("update takes  communication  bytes an example  epochs an hour")
    assert first.split()[-5:] == ["434", "ms", "92.6%", "31,250", "17.7"]
    assert (
        "on 4 replicas over 2 hosts, without evaluations: 0.706 × the speed of one replica, "
        in lines[-3]
    )
    assert lines[-2] == "below a batch of 1,608, more than half of an update is communication"
    assert lines[-1] == "above a batch of 14,472, a larger batch saves less than 10% of the time"


def test_the_speed_of_a_replica_alone_asks_for_the_cost(capsys):
    plan.run(parsed(FASHION, "--plan_examples_per_second=1000"))
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("16 min on one replica, without evaluations")


def test_replicas_alone_lay_the_run_out(capsys):
    plan.run(parsed(FASHION, "--plan_replicas=4"))
    _, first, *_, note, _ = capsys.readouterr().out.splitlines()
    assert first.endswith("32 × 1")
    assert note.startswith("the duration is not known: pass --plan_examples_per_second")
    with pytest.raises(UserError, match="batch size 128 is not a multiple of 8 replicas"):
        plan.run(parsed(FASHION, "--plan_replicas=8"))


def test_workers_by_phase_in_the_table_in_json_and_in_a_figure(tmp_path, capsys):
    asked = (FASHION, "--workers=1:8", *WORKER, "--plan_change_seconds=1")
    figure = tmp_path / "plan.png"
    assert plan.run(parsed(*asked, f"--plot={figure}")) == 0
    out = capsys.readouterr().out
    assert "workers  duration  worker-hours" in out
    assert figure.stat().st_size > 10_000
    plan.run(parsed(*asked, "--format=json"))
    found = json.loads(capsys.readouterr().out)["workers"]
    assert found["phases"][0] == {"start_epoch": 0.0, "start_update": 0, "workers": 1}
    assert [each["workers"] for each in found["phases"]] == [1, 2, 5, 8]
    assert found["fixed"].keys() == {"1", "2", "4"}
    assert found["seconds"] < found["fixed"]["2"]["seconds"]


def test_hosts_alone_have_a_replica_each(capsys):
    plan.run(
        parsed(FASHION, "--plan_hosts=4", "--plan_examples_per_second=1", "--plan_parameters=1")
    )
    assert "on 4 replicas over 4 hosts" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--plan_replicas=3", "--plan_hosts=2"),
            r"cannot share 3 replicas evenly.\nUse --plan_replicas=4,",
        ),
        (
            ("--plan_hosts=2", "--plan_examples_per_second=9"),
            r"hosts sum in each update.\nPass --plan_parameters, or",
        ),
        (("--workers=1:4",), r"--workers=1:4 needs the speed of a worker.\nPass --plan_exam"),
        (("--workers=1:4", "--plan_examples_per_second=9"), r"--workers=1:4 needs the number of"),
        (("--workers=1:4", "--plan_hosts=2"), "both name a number of hosts: leave one of the two"),
        (("--workers=4:1",), "must be the fewest and the most workers, such as 1:8"),
        (
            ("--workers=3:3", *WORKER),
            r"--workers=3:3 has no number of workers, of one replica each, that can share a batch",
        ),
        (("--plan_hosts=2", "--plan_examples_per_second=0"), "must be above 0"),
        (("--plan_hosts=2", "--plan_link_bandwidth=0"), "must be above 0"),
        (("--plan_hosts=2", "--plan_link_latency=-1"), "must be from 0 to 1e12"),
    ],
)
def test_costs_that_cannot_be_told(arguments, message):
    with pytest.raises(UserError, match=message) as error:
        plan.run(parsed(FASHION, *arguments, command="plan"))
    assert len(str(error.value).splitlines()) <= 2


def test_the_cost_by_a_run(uninterrupted, tmp_path, capsys):
    model_dir, _ = uninterrupted
    ended = json.loads((model_dir / "result.json").read_text())
    assert (ended["replicas"], ended["hosts"]) == (1, 1)
    # Of tests.support.models.tiny: 5 × 5 × 8, 4 of 8 channels, 8 × 10 + 10.
    assert ended["parameters"] == 200 + 4 * 8 + 90
    assert list(ended["update_seconds"]) == ["32", "160", "800"]
    batches = ("--base_batch_size=32", "--ghost_batch_size=8", "--max_batch_size=800")
    asked = (FASHION, *batches, "--format=json", "--plan_hosts=2")
    plan.run(parsed(*asked, f"--model_dir={model_dir}", *TEN_MEGABYTES_A_SECOND))
    first = json.loads(capsys.readouterr().out)["phases"][0]
    communication = 0.002 + 4 * ended["parameters"] / 1e7
    alone = ended["update_seconds"]["32"]
    assert alone / 2 <= first["update_seconds"] - communication <= alone * (1 + 1e-9)
    assert first["bytes_per_example"] == pytest.approx(4 * ended["parameters"] / 32)

    other = tmp_path / "run"
    other.mkdir()
    (other / "result.json").write_text(json.dumps(ended | {"hosts": 2}))
    with pytest.raises(UserError, match=r"was trained by 2 hosts.*\nName a run of one host"):
        plan.run(parsed(*asked, f"--model_dir={other}"))
    given = ("--plan_examples_per_second=10", f"--model_dir={other}")
    assert plan.run(parsed(*asked, *given)) == 0


@pytest.mark.parametrize(
    ("of_run", "flags", "ratio", "note"),
    [
        (28, ["--image_sizes=14@0,28@50%"], 1.0, ""),
        (14, ["--image_sizes=14@0,28@50%"], 4.0, ""),
        (None, ["--image_sizes=14@0,28@50%"], 1.0, "are assumed to hold for images of 28 pixels"),
        (14, [], 1.0, "hold for images of 14 pixels"),
        (None, [], 1.0, ""),
    ],
)
def test_a_runs_times_are_scaled_to_the_pixels(tmp_path, capsys, of_run, flags, ratio, note):
    ended = {"replicas": 1, "hosts": 1, "parameters": 9, "update_seconds": {"128": 2.0}}
    of_sizes = {"image_size": of_run} if of_run else {}
    common = {"top1": 0.5, "loss": 1.0, "updates": 1, "position": 128, "seconds": 2.0}
    (tmp_path / "result.json").write_text(json.dumps({**common, **ended, **of_sizes}))
    flags = [FASHION, *flags, f"--model_dir={tmp_path}", "--plan_replicas=1", "--format=json"]
    plan.run(parsed(*flags))
    out, error = capsys.readouterr()
    phases = json.loads(out)["phases"]
    assert phases[-1]["update_seconds"] == pytest.approx(
        2.0 * ratio * phases[-1]["batch_size"] / 128
    )
    assert (note in error) if note else ("the update times of" not in error)


def test_a_run_that_has_not_ended_tells_no_cost(tmp_path, capsys):
    asked = (FASHION, f"--model_dir={tmp_path}/new")
    plan.run(parsed(*asked))
    assert "is not known" not in capsys.readouterr().out
    plan.run(parsed(*asked, "--plan_replicas=2"))
    assert "is not known" in capsys.readouterr().out
    plan.run(parsed(*asked, "--plan_replicas=2", "--format=json"))
    assert "seconds" not in json.loads(capsys.readouterr().out)
