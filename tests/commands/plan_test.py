import json
import subprocess
import sys

import pytest

from tests.support.configs import done, parsed
from trainer.commands import plan
from trainer.errors import UserError

RECIPE = "--flagfile=flags/cifar10_wrn_16_4_grow.flags"


def test_json(capsys):
    assert plan.run(parsed(RECIPE, "--format=json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["examples"] == 50_000
    assert found["total_updates"] == sum(phase["updates"] for phase in found["phases"])
    assert found["phases"][1] == {
        "start_epoch": 23438 * 128 / 50_000,
        "start_update": 23438,
        "updates": 4688,
        "batch_size": 640,
        "learning_rate": 0.1,
        "momentum": 0.9,
        "noise_scale": pytest.approx(0.1 * 50_000 / (640 * 0.1)),
        "micro_batch_size": 128,
        "accumulation": 5,
    }


def test_the_layout_is_that_of_the_devices(capsys):
    plan.run(
        parsed(
            RECIPE,
            "--format=json",
            "--initial_batch_size=640",
            "--max_batch_size=5120",
            "--virtual_devices=5",
        )
    )
    first = json.loads(capsys.readouterr().out)["phases"][0]
    assert (first["micro_batch_size"], first["accumulation"]) == (128, 1)


def test_a_clipped_run_is_not_said_to_be_invariant(capsys):
    for clip in ([], ["--clip_norm=1"]):
        plan.run(parsed(RECIPE, *clip))
        said = "--clip_norm=1 depends on the batch size" in capsys.readouterr().out
        assert said == bool(clip)


def test_one_update_is_not_several(capsys):
    plan.run(parsed("--train_examples=1280", "--epochs=0.05"))
    assert "\n1 update over 0.05 epochs of 1,280 examples\n" in capsys.readouterr().out


def test_table_and_plot(capsys, tmp_path):
    plan.run(parsed(RECIPE, f"--plot={tmp_path}/plan.png"))
    assert "29,142 updates over 200 epochs of 50,000 examples" in capsys.readouterr().out
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["nowhere/plan.png", "plan.nothing"])
def test_a_plot_that_cannot_be_written(tmp_path, name):
    with pytest.raises(UserError, match="cannot be written"):
        plan.run(parsed(RECIPE, f"--plot={tmp_path}/{name}"))


def test_examples_that_are_not_known_are_asked_for(tmp_path, capsys):
    unknown = ("--dataset=beans", f"--data_dir={tmp_path}")
    with pytest.raises(UserError, match="beans's 'train' is not known here: pass --train_ex"):
        plan.run(parsed(*unknown))
    assert plan.run(parsed(*unknown, "--train_examples=12345")) == 0
    assert "of 12,345 examples" in capsys.readouterr().out


def test_tensorflow_is_not_imported():
    code = (
        "import sys; from trainer.main import main; "
        f"status = main(['crescendo', 'plan', '{RECIPE}', '--train_split=train[:90%]', "
        "'--model_dir=runs/none', '--plan_replicas=1']); "
        "sys.exit(status or 'tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


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


def test_one_epoch_is_not_plural(capsys):
    assert plan.run(parsed(FASHION, "--epochs=1")) == 0
    assert "updates over 1 epoch of 60,000 examples" in capsys.readouterr().out


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


def test_the_end_of_one_call_is_not_the_end_of_the_plan(capsys):
    assert plan.run(parsed("--stop_at_epoch=1", "--epochs=2", command="plan")) == 0
    out, error = capsys.readouterr()
    assert "937 updates over 2 epochs" in out or "938 updates over 2 epochs" in out
    assert "--stop_at_epoch=1 is ignored: the plan covers the whole run" in error


def test_what_trains_at_which_rate_is_printed_in_the_table_and_in_json(capsys):
    flags = ["--layer_decay=0.1", "--train_split=train[:500]", "--initial_batch_size=32"]
    flags += ["--freeze=group1", "--unfreeze_epochs=2"]
    status, out, _ = done(capsys, "plan", *flags)
    assert status == 0
    frozen = "layers that match group1 are frozen up to epoch 2"
    assert f"{frozen}; the step is then traced once more\n" in out
    assert "factor on the learning rate, by --layer_decay=0.1:" in out
    assert "  1        logits\nwarning: 2 of 6 groups have a factor below 0.001" in out
    _, text, _ = done(capsys, "plan", *flags, "--format=json")
    notes = json.loads(text)["notes"]
    assert "\n".join(notes) in out
    assert len(notes) == 1 + 1 + 6 + 1


def test_layers_are_grouped_without_reading_an_image(tmp_path, capsys):
    """Layers are known of pictures that are elsewhere, or that nobody can decode."""
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "train" / name / f"{number}.jpg").write_bytes(b"not a picture")
    flags = ["--layer_decay=0.5", "--model=wide_resnet_10_1", "--initial_batch_size=2"]
    flags += ["--ghost_batch_size=2", "--image_size=32"]
    status, out, _ = done(capsys, "plan", *flags, f"--dataset=image_folder:{tmp_path}")
    assert status == 0
    assert "  0.5      last_norm\n  1        logits\n" in out
    few = ["--num_classes=1", f"--dataset=image_folder:{tmp_path}"]
    status, _, error = done(capsys, "plan", *flags, *few)
    assert status == 2
    assert "--num_classes=1 is below the 2 classes of image_folder" in error
    elsewhere = [f"--dataset=image_folder:{tmp_path}/elsewhere", "--train_examples=40"]
    assert done(capsys, "plan", *flags, *elsewhere)[:2] == (0, out)
    status, _, error = done(capsys, "plan", *flags[:-1], *elsewhere)
    assert status == 2
    assert "give --image_size=N" in error
