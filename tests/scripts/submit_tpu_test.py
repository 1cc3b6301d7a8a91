"""submit_tpu.sh end to end, with a stand-in for gcloud that runs the machine's commands.

However a job ends, a TPU that was made is deleted, or reported as left behind.
"""

import os
import re
import shlex
import signal
import subprocess

import pytest

from tests.support.tpu_job import JOB, RECIPE


def test_a_job_trains_copies_and_fetches(cloud):
    cloud.python = str(cloud.folder / "submitter")
    network = ["--network=mine", "--subnetwork=part"]
    output = cloud.submit("--spot", *network, "--fetch", "--label_smoothing=0.1", status=0)
    (create,) = cloud.calls_with("queued-resources create")
    assert "--spot" in create
    assert "--network=mine --subnetwork=part" in create
    assert "--runtime-version=v2-alpha-tpuv5-lite" in create
    (trained,) = cloud.lines("trained")
    assert trained.startswith(f"-m trainer train {' '.join(RECIPE)} --label_smoothing=0.1")
    url = "--model_dir=gs://bucket/runs/job"
    assert trained.endswith(f"--strategy=tpu --tpu=local {url} --cache_dir=job")
    assert cloud.lines("libraries") == ["/lib/libtpu.so"]
    assert "update 100, then 0" in output
    assert "update 100, then 0" in (cloud.checkout / "runs/job.log").read_text()
    assert cloud.bucket("updates") == "100\n"
    (log,) = (cloud.folder / "bucket/runs/job/logs").iterdir()
    assert log.read_text() == "update 100, then 0\n"
    plan, fetch = cloud.lines("python_calls")
    assert plan.startswith("-m trainer plan")
    assert fetch == f"-m trainer fetch {url} --local_dir=runs/job"


def test_dry_run_prints_the_commands_of_a_run(cloud):
    output = cloud.submit("--fetch", "--dry_run", status=0)
    assert cloud.lines("calls") == []

    def asked(lines):
        """The lines without temporary folders, and without steps that check or repeat."""
        lines = [re.sub(r"\S+/(crescendo.tar.gz)", r"\1", line) for line in lines]
        lines = [shlex.join(shlex.split(line)) for line in lines]
        return [line for line in lines if not re.match("auth|storage ls|.*describe", line)]

    printed = [line.removeprefix("gcloud ") for line in output.splitlines() if line[:6] == "gcloud"]
    cloud.submit("--fetch", status=0)
    assert asked(printed) == asked(cloud.lines("calls"))
    assert asked(printed)
    for invented in ("ACTIVE", "exit 0", "saved", "nothing is left", "results:"):
        assert invented not in output.replace(" ".join(printed), "")


def test_a_refused_request_ends_the_job(cloud):
    cloud.set_scenario(quota=True)
    output = cloud.submit(status=1)
    assert "RESOURCE_EXHAUSTED: Quota limit" in output
    assert "it was refused" in output
    assert cloud.lines("made") == []


def test_missing_capacity_ends_the_job(cloud):
    cloud.set_scenario(states=["WAITING_FOR_RESOURCES", "FAILED"])
    assert "There is no more capacity" in cloud.submit(status=1)
    assert cloud.lines("deleted") == ["job"]


def test_a_job_preempted_twice_resumes(cloud):
    cloud.set_plays("preempted", "preempted", "0")
    output = cloud.submit("--spot", status=0)
    assert len(cloud.lines("made")) == len(cloud.calls_with("tpu_worker.sh install")) == 3
    # Each disk was lost, and the updates went on from those in the bucket.
    assert "update 300, then 0" in output
    assert cloud.bucket("updates") == "300\n"


def test_preemption_before_training_counts_as_a_start(cloud):
    cloud.set_scenario(states=["PROVISIONING", "SUSPENDED"])
    assert "exists already" not in cloud.submit("--spot", "--attempts=3", status=75)
    assert len(cloud.lines("made")) == 3


def test_stopped_and_lost_runs_start_again_on_the_same_tpu(cloud):
    """A TPU on demand, which is not spot, in the default network."""
    cloud.set_plays("75", "76", "0")
    assert "update 300, then 0" in cloud.submit(status=0)
    (create,) = cloud.calls_with("queued-resources create")
    assert "spot" not in create
    assert "network" not in create
    assert len(cloud.lines("made")) == len(cloud.calls_with("tpu_worker.sh install")) == 1


def test_attempts_limit_the_starts(cloud):
    cloud.set_plays("75", "75", "0")
    assert "gs://bucket/runs/job" in cloud.submit("--attempts=2", status=75)
    assert len(cloud.lines("trained")) == 2


@pytest.mark.parametrize("status", [2, 3])
def test_other_statuses_of_the_trainer_end_the_job(cloud, status):
    cloud.set_plays(status, "0")
    assert f"then {status}" in cloud.submit(status=status)
    assert len(cloud.lines("trained")) == 1


def test_a_failed_installation_ends_the_job(cloud):
    cloud.set_scenario(install="fails")
    output = cloud.submit(status=1)
    assert "no matching distribution" in output
    assert "could not be installed" in output
    assert cloud.lines("trained") == []


def test_a_lost_connection_does_not_end_the_run(cloud):
    cloud.set_scenario(drops=2)
    cloud.set_plays("wait")
    process = cloud.start(*JOB, *RECIPE)
    cloud.wait_for(" follow ", 3)
    subprocess.run(
        "kill $(cut -d ' ' -f 1 crescendo/trainer.pid)", shell=True, cwd=cloud.folder / "machine"
    )
    cloud.set_plays("0")
    output = cloud.finish(process, 0)
    assert output.count("update 100, then wait") == 1, "the log was shown again"


@pytest.mark.parametrize("sent,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_saves_a_checkpoint(cloud, sent, status):
    cloud.set_plays("wait")
    process = cloud.start(*JOB, *RECIPE)
    cloud.wait_for("then wait", file=cloud.checkout / "runs/job.log")
    if sent == signal.SIGINT:
        os.killpg(process.pid, sent)
    else:
        process.send_signal(sent)
    cloud.finish(process, status)
    assert "stopped, with a checkpoint" in next(
        path.read_text() for path in cloud.folder.glob("bucket/runs/job/logs/*")
    )


def test_an_interrupt_while_waiting_deletes_the_tpu(cloud):
    cloud.set_scenario(states=["WAITING_FOR_RESOURCES"])
    process = cloud.start(*JOB, *RECIPE)
    cloud.wait_for("describe", 4)
    os.killpg(process.pid, signal.SIGINT)
    cloud.finish(process, 130)
    assert cloud.lines("deleted") == ["job"]


def test_an_interrupt_during_the_request_deletes_the_tpu(cloud):
    cloud.set_scenario(create_seconds=1)
    process = cloud.start(*JOB, *RECIPE)
    cloud.wait_for("create")
    os.killpg(process.pid, signal.SIGINT)
    cloud.finish(process, 130)
    assert cloud.lines("deleted") == ["job"]


def test_a_second_signal_names_what_is_left(cloud):
    cloud.set_scenario(states=["WAITING_FOR_RESOURCES"], delete="hangs")
    process = cloud.start(*JOB, *RECIPE)
    cloud.wait_for("describe", 4)
    os.killpg(process.pid, signal.SIGINT)
    cloud.wait_for("delete")
    os.killpg(process.pid, signal.SIGINT)
    cloud.finish(process, 1)


def test_a_tpu_that_cannot_be_deleted_is_reported(cloud):
    cloud.set_scenario(delete="fails")
    assert "PERMISSION_DENIED" in cloud.submit(status=1)


def test_results_that_cannot_be_copied_stay_on_the_tpu(cloud):
    cloud.set_scenario(copies="fail")
    cloud.set_plays("0", "0")
    assert "its results are only on its disk" in cloud.submit("--attempts=2", status=1)
    assert len(cloud.lines("trained")) == 2


def test_a_killed_job_is_taken_over_by_the_next_call(cloud):
    cloud.set_plays("wait")
    process = cloud.start(*JOB, *RECIPE)
    cloud.wait_for(" follow ")
    process.kill()
    process.wait()
    again = cloud.start(*JOB, *RECIPE)
    cloud.wait_for(" follow ", 2)
    os.killpg(again.pid, signal.SIGINT)
    output = cloud.finish(again, 130)
    assert "job exists already: using it" in output
    assert len(cloud.lines("made")) == len(cloud.lines("trained")) == 1


SLICE = ["--accelerator_type=v5litepod-16"]


def test_a_slice_of_two_hosts_trains_with_a_process_on_each(cloud):
    cloud.set_scenario(hosts=2)
    output = cloud.submit(*SLICE, status=0)
    assert "update 100, then 0" in output
    assert len(cloud.calls_with("--worker=all")) == 3  # The copy, the installation, the hosts.
    library = "10.0.0.2:8476 /lib/libtpu.so"
    assert sorted(cloud.lines("hosts")) == [f"0 10.0.0.2 {library}", f"1 10.0.0.3 {library}"]
    (trained,) = cloud.lines("trained")
    assert "--strategy=tpu --tpu=10.0.0.2:8470,10.0.0.3:8470 --model_dir=gs://bucket" in trained
    assert cloud.lines("libraries") == [""]  # The trainer itself does not use the TPU.


def test_a_slice_that_is_preempted_starts_again_from_the_bucket(cloud):
    cloud.set_scenario(hosts=2)
    cloud.set_plays("preempted", "0")
    output = cloud.submit(*SLICE, "--spot", status=0)
    assert len(cloud.lines("made")) == len(cloud.calls_with("tpu_worker.sh install")) == 2
    assert len(cloud.lines("hosts")) == 4
    assert "update 200, then 0" in output


def test_the_loss_of_a_host_starts_all_hosts_again(cloud):
    cloud.set_scenario(hosts=2)
    cloud.set_plays("76", "0")
    output = cloud.submit(*SLICE, status=0)
    assert len(cloud.lines("made")) == len(cloud.calls_with("tpu_worker.sh install")) == 1
    assert len(cloud.lines("hosts")) == 4
    lost, again = output.partition("update 100, then 76")[2].split("start 2 of at most 5")
    for number in (0, 1):  # Why a host was lost is in its own log.
        assert f"host {number}: this host serves on port 8470" in lost
        assert "this host serves" not in again


def test_hosts_that_cannot_start_end_the_job_after_all_attempts(cloud):
    cloud.set_scenario(hosts=2, host="fails")
    output = cloud.submit(*SLICE, "--attempts=2", status=75)
    assert "no TPU here" in output
    assert len(cloud.lines("hosts")) == 4
    assert cloud.lines("trained") == []


def test_dry_run_of_a_slice_prints_the_start_of_the_hosts(cloud):
    output = cloud.submit(*SLICE, "--dry_run", status=0)
    (line,) = [line for line in output.splitlines() if "tpu_worker.sh host" in line]
    assert "--worker=all" in line
