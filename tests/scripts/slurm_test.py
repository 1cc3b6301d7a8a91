"""Runs the script for Slurm's jobs, with stand-ins for srun and scontrol."""

import os
import subprocess

import pytest

SCRIPT = "scripts/cluster/train.sbatch"


def submitted(folder, statuses, restarts=0, wanted=()):
    """Runs train.sbatch while srun returns `statuses` in turn; returns its status and its calls.

    `wanted`: numbers of workers that the run asks for at its starts; () without --workers.
    """
    calls, left = folder / "calls", folder / "statuses"
    calls.write_text("")
    left.write_text("".join(f"{status}\n" for status in statuses))
    numbers = folder / "numbers"
    numbers.write_text("".join(f"{number} 1:6\n" for number in wanted))
    for name, body in {
        "srun": f"s=$(head -1 {left}); sed -i 1d {left}; exit $s",
        "scontrol": "",
        "bin/python": f"head -1 {numbers}; sed -i 1d {numbers}",
    }.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f'#!/bin/bash\nprintf "%s|" {path.name} "$@" >> {calls}\necho >> {calls}\n'
            f'echo "$CRESCENDO_SECRET" >> {folder}/secrets\n{body}\n'
        )
        path.chmod(0o755)
    environment = {
        "PATH": f"{folder}:/usr/bin:/bin",
        "VIRTUAL_ENV": str(folder),
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_JOB_NUM_NODES": "3",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    done = subprocess.run(
        [SCRIPT, "--model_dir=a b", "--epochs=3"],
        env=environment,
        check=False,
    )
    lines = calls.read_text().splitlines()
    asking = [line for line in lines if line.startswith("python|")]
    module = "python|-m|trainer.run_dir.wanted_workers|6|--model_dir=a b|--epochs=3|"
    assert set(asking) == {module}
    return done.returncode, [line for line in lines if line not in asking]


def test_slurm_passes_all_arguments_on(tmp_path):
    status, (call,) = submitted(tmp_path, [0])
    assert status == 0
    program, *arguments = call.removesuffix("|").split("|")
    assert program == "srun"
    assert "--cpus-per-task=4" in arguments
    ours = arguments[arguments.index(f"{tmp_path}/bin/python") :]
    assert ours[1:] == [
        *("-m", "trainer", "train", "--strategy=multi_worker", "--model_dir=a b", "--epochs=3")
    ]


def test_slurm_starts_the_wanted_number_of_workers(tmp_path):
    """The job has 3 nodes of 2 workers; changes of the number do not count as restarts."""
    status, calls = submitted(tmp_path, [*[77] * 5, 0], wanted=range(1, 7))
    assert status == 0
    words = [call.removesuffix("|").split("|") for call in calls]
    sizes = [[each for each in call if each.startswith(("--nt", "--no"))] for call in words]
    assert sizes == [
        [f"--ntasks={n}", f"--nodes={nodes}"]
        for n, nodes in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3))
    ]
    assert all(call[-3:] == ["--model_dir=a b", "--epochs=3", "--workers=1:6"] for call in words)
    (plain,) = submitted(tmp_path, [0])[1]
    assert "--ntasks" not in plain
    assert "--workers" not in plain


@pytest.mark.parametrize("wanted", [(), [2] * 9])
def test_a_change_to_the_same_number_is_a_restart(tmp_path, wanted):
    """Status 77 without end would start for ever."""
    status, calls = submitted(tmp_path, [77] * 9, wanted=wanted)
    assert (status, len(calls)) == (77, 4)


@pytest.mark.parametrize(
    ("statuses", "starts"),
    [([76, 137, 0], 3), ([139, 76, 76, 76, 0], 4), ([2], 1), ([74], 1), ([1], 1), ([76, 3], 2)],
)
def test_slurm_starts_again_after_a_worker_is_lost(tmp_path, statuses, starts):
    status, calls = submitted(tmp_path, statuses)
    assert [call.partition("|")[0] for call in calls] == ["srun"] * starts
    assert status == statuses[starts - 1]
    secrets = (tmp_path / "secrets").read_text().split()
    assert len(set(secrets)) == starts
    assert {len(bytes.fromhex(each)) for each in secrets} == {32}


@pytest.mark.parametrize(("last", "restarts", "queued"), [(75, 0, 1), (143, 99, 1), (75, 100, 0)])
def test_slurm_queues_a_stopped_job_again(tmp_path, last, restarts, queued):
    status, calls = submitted(tmp_path, [76, last, 0], restarts)
    assert status == last
    assert calls[2:] == ["scontrol|requeue|7|"] * queued


def test_outside_a_job_it_says_how_to_submit(tmp_path):
    elsewhere = {name: value for name, value in os.environ.items() if "SLURM" not in name}
    done = subprocess.run(
        [SCRIPT, f"--model_dir={tmp_path}/run"], env=elsewhere, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first == "train.sbatch: this is not a job of Slurm."
    assert second == f"Submit it: sbatch --nodes=2 {SCRIPT} --model_dir={tmp_path}/run"
    done = subprocess.run([SCRIPT], env=elsewhere, capture_output=True, text=True)
    assert done.stderr.endswith(f"sbatch --nodes=2 {SCRIPT}\n")
