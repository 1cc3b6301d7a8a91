"""A command whose output is its result ends in one line if it cannot print it."""

import os
import subprocess
import sys

import pytest

from trainer.system import output
from trainer.system.output import clean

PLAN = [sys.executable, "-m", "trainer", "plan"]
# Two megabytes, so that some of it is written before the end.
LONG = ["--format=json", "--warmup_epochs=16", "--warmup_from=0.1"]


@pytest.mark.parametrize("flags", [["--help"], ["train", "--help"], ["--version"]])
def test_help_on_a_full_disk_is_a_failure_of_a_training_too(flags):
    line = [sys.executable, "-m", "trainer", *flags]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "the output cannot be written: No space left on device." in done.stderr


@pytest.mark.parametrize("flags", [[], LONG, ["--help"]], ids=["short", "long", "help"])
def test_a_result_on_a_full_disk_is_a_failure(flags):
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PLAN, *flags], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "crescendo plan: the output cannot be written: No space left on device. Free disk space, "
        "or write it elsewhere.\n"
    )


def test_nothing_is_said_to_a_reader_that_has_left():
    into, out = os.pipe()
    os.close(into)
    done = subprocess.run([*PLAN, *LONG], stdout=out, stderr=subprocess.PIPE)
    os.close(out)
    assert (done.returncode, done.stderr) == (1, b"")


def test_messages_that_cannot_be_written_change_no_status():
    with open("/dev/full", "w") as full:
        wrong = subprocess.run([*PLAN, "--epochs=0"], stdout=subprocess.PIPE, stderr=full)
        right = subprocess.run(PLAN, stdout=subprocess.PIPE, stderr=full)
    assert (wrong.returncode, wrong.stdout) == (2, b"")
    assert right.returncode == 0
    assert right.stdout.startswith(b"epoch")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_every_encoding_shows_the_plan(encoding):
    done = subprocess.run(
        PLAN, capture_output=True, env=os.environ | {"PYTHONIOENCODING": encoding}
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("128 x 1" if encoding == "ascii" else "128 × 1") in done.stdout.decode(encoding)


def test_closed_streams_are_not_taken_for_files():
    done = subprocess.run(
        ["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *PLAN, "--plot=/nothing/x.png"],
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


def test_control_characters_are_shown_and_do_nothing():
    assert clean("a\x1b[2Jb\rc\x07\x9b1m\u202ed\n\te × ε 猫") == (
        r"a\x1b[2Jb\rc\x07\x9b1m\u202ed" + "\n\te × ε 猫"
    )


def test_messages_above_a_bar_go_where_those_without_a_bar_go():
    """A command whose result is on stdout has a bar too."""
    streams = []
    try:
        for command in (None, "predict"):
            output.log_to(command)
            output.log_above_bar(lambda text, file: streams.append((text, file)))
            output.log("a\x1b")
    finally:
        output.log_above_bar(None)
        output.log_to(None)
    assert streams == [(r"a\x1b", sys.stdout), (r"a\x1b", sys.stderr)]


def test_a_folders_name_does_not_reach_the_terminal(tmp_path):
    name = tmp_path / "\x1b[2J\x1b]0;owned\x07"
    name.mkdir()
    for command in ("report", "evaluate", "export", "train"):
        flags = [str(name)] if command == "report" else [f"--model_dir={name}/x\x1b[1m"]
        flags += ["--train_split=nothing\x1b[3m"] if command == "train" else []
        line = [sys.executable, "-m", "trainer", command, *flags]
        done = subprocess.run(line, capture_output=True)
        assert done.returncode == 2
        assert b"\x1b" not in done.stdout + done.stderr
        assert rb"\x1b[" in done.stderr


USERS = {
    "closes": "sys.stdout.close(), sys.stderr.close()",
    "removes": "sys.stdout = sys.stderr = None",
    "leaves closed": "sys.stdout = sys.stderr = io.StringIO(); sys.stdout.close()",
    "closes descriptors": "os.close(1), os.close(2)",
    "fills a disk": "sys.stdout = sys.stderr = open('/dev/full', 'w')",
    "writes alone": "sys.stdout = type('T', (), {'write': lambda _, text: os.write(1, b'tee')})()",
}
AFTER = """
import io, os, sys
from trainer.system import output
output.protect(training=True)
with output.kept():
    {}
with open(sys.argv[1], "w") as file:
    output.say("said")
    output.say("warned", to=sys.stderr)
    output.width()
    os.write(2, b"TensorFlow")
output.end()
"""


@pytest.mark.parametrize("code", USERS.values(), ids=USERS)
def test_users_code_that_closes_or_replaces_streams_ends_nothing(code, tmp_path):
    line = [sys.executable, "-c", AFTER.format(code), str(tmp_path / "file")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_text() == ""
    shown = {"fills a disk": "", "closes descriptors": "", "writes alone": "tee"}
    name = next(name for name, each in USERS.items() if each == code)
    assert done.stdout.startswith(shown.get(name, "said\n"))
