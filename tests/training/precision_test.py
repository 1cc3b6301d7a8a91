"""--precision=auto: which hardware gets bfloat16, and what a run keeps on another machine."""

import dataclasses
import pathlib

import pytest

from tests.support.configs import parsed
from tests.support.runs import SHORT, as_of, digest, started, train
from trainer.config.flagfile import to_flagfile
from trainer.distributed.process_group import ProcessGroup
from trainer.training import precision

CPUINFO = "processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu {} lm\nbugs\t\t: amx_bf16\n"
# For tests of what does not depend on the model: this step is traced in half the time.
LINEAR = [*SHORT, "--model=tests.support.models:reshaping"]
HERE = precision.Choice("bfloat16", "this machine is the one of this test")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr(precision, "of_this_machine", lambda: HERE)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx512f", "float32"),
        ("amx_bf16", "bfloat16"),
        ("avx512_bf16 amx_int8", "bfloat16"),
        ("amx_bf16x avx512_bf", "float32"),
    ],
)
def test_a_cpu_with_instructions_for_bfloat16_gets_it(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(CPUINFO.format(flags))
    choice = precision._of_cpu(tmp_path / "cpuinfo")
    assert choice.precision == expected
    assert ("has neither" in choice.reason) == (expected == "float32")


def test_a_system_that_does_not_describe_its_cpu_gets_float32(tmp_path):
    assert precision._of_cpu(tmp_path / "missing").precision == "float32"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([(8, 0)], "bfloat16"),
        ([(9, 0), (7, 5)], "float32"),
        ([(10, 0), (8, 9)], "bfloat16"),
        ([(0, 0)], "float32"),
    ],
)
def test_the_oldest_gpu_decides(capabilities, expected):
    assert precision._of_gpus(capabilities).precision == expected


def test_the_run_decides_then_determinism_then_the_hardware(tmp_path, logged):
    def found(*flags, path=tmp_path):
        return precision.resolved(parsed(*flags), path, ProcessGroup()).precision

    tpu = ["--strategy=tpu", "--tpu=local"]
    assert found() == found(*tpu) == "bfloat16"
    assert found("--deterministic") == found(*tpu, "--deterministic") == "float32"
    assert f"this run computes in bfloat16, because {HERE.reason}" in logged
    for kept in ("bfloat16", "float32"):
        (tmp_path / "flags.txt").write_text(to_flagfile(parsed(f"--precision={kept}")))
        for flags in ([], ["--deterministic"], tpu):
            assert found(*flags) == kept
    (tmp_path / "flags.txt").write_text("--epochs=2\n")
    assert found() == "float32"
    count = len(logged)
    assert found("--precision=bfloat16") == "bfloat16"
    assert len(logged) == count


def test_the_chief_decides_for_all_workers(tmp_path):
    chief = ProcessGroup(0, 2)
    texts = []
    telling = dataclasses.replace(chief, all_gather=lambda text: texts.append(text) or [text, ""])
    assert precision.resolved(parsed(), tmp_path, telling).precision == "bfloat16"
    (tmp_path / "flags.txt").write_text(to_flagfile(parsed("--precision=float32")))
    other = ProcessGroup(1, 2, all_gather=lambda text: [*texts, text])
    assert precision.resolved(parsed(), tmp_path, other).precision == "bfloat16"


def test_a_process_of_its_own_sees_the_same_machine(monkeypatch):
    monkeypatch.undo()
    assert precision.of_this_machine_in_a_process() == precision.of_this_machine()


def test_a_run_in_bfloat16_goes_on_where_float32_is_the_choice(tmp_path):
    """--deterministic chooses float32 for a new run, and does not for one that began."""
    half, whole, single = (tmp_path / name for name in ("half", "whole", "single"))
    train(whole, *LINEAR, "--precision=bfloat16")
    resumed = train(as_of(whole, half, 125), *LINEAR, "--precision=auto")
    assert "this run computes in bfloat16, because it began with this precision" in resumed.stdout
    assert "--precision=bfloat16\n" in (half / "flags.txt").read_text()
    assert digest(half) == digest(whole)
    new = train(single, *LINEAR, "--precision=auto", "--stop_at_epoch=0.1")
    assert "this run computes in float32, because --deterministic is given" in new.stdout
    assert "--precision=float32\n" in (single / "flags.txt").read_text()
    process = started(single, *LINEAR, "--precision=bfloat16")
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "--precision: float32 → bfloat16" in errors
    assert pathlib.Path(single / "flags.txt").read_text().count("--precision") == 1
