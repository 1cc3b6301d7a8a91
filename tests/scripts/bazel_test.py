"""Runs scripts/bazel.sh with the real Bazel in its own checkout, and without Bazel."""

import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.support.runs import command


def link(folder, paths):
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path.name).symlink_to(path)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of this checkout's files, with its environment, without build results."""
    folder = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("flags", "scripts", "tests", "trainer"):
        shutil.copytree(name, folder / name, ignore=ignored)
    for path in pathlib.Path().glob("*"):
        if path.is_file():
            shutil.copy(path, folder)
    # The environment looks as if scripts/setup.sh had made it.
    link(folder / ".venv", [pathlib.Path(sys.prefix, n) for n in ("bin", "lib", "pyvenv.cfg")])
    shutil.copy("setup.cfg", folder / ".venv/installed_setup.cfg")
    (folder / ".venv/data_tried").touch()
    return folder


def ran(checkout, *arguments, **options):
    """Runs the script to its end."""
    return subprocess.run(
        [checkout / "scripts/bazel.sh", *arguments], capture_output=True, text=True, **options
    )


@pytest.fixture(scope="module")
def bazel(checkout):
    """bazel(argument, ...) → the finished process of Bazel in the checkout."""
    if not shutil.which("bazel-4"):
        pytest.skip("scripts/bazel.sh has not installed Debian's Bazel on this machine")
    yield lambda *arguments: ran(checkout, *arguments)
    ran(checkout, "shutdown")


def test_bazel_has_a_target_for_each_test_file(bazel):
    done = bazel("query", "tests(//...)")
    files = {str(path.with_suffix("")) for path in pathlib.Path("tests").glob("**/*_test.py")}
    assert set(done.stdout.split()) == {f"//:{name}" for name in files}, done.stderr


def test_bazel_reports_passed_and_failed_tests(bazel, checkout):
    name = "tests/schedule/wrong_test"
    (checkout / f"{name}.py").write_text("def test_wrong():\n    assert 1 + 1 == 3\n")
    done = bazel("test", "//:tests/sweep/grid_test", f"//:{name}")
    assert done.returncode == 3, done.stderr  # Bazel built all, and a test failed.
    words = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("//:")]
    assert words == [["//:tests/sweep/grid_test", "PASSED"], [f"//:{name}", "FAILED"]]


def test_the_program_runs_and_finds_recipes(bazel, tmp_path):
    flags = ["--flagfile=flags/fashion_mnist_grow.flags"]
    done = bazel("run", "//:crescendo", "--", "plan", *flags)
    plain = subprocess.run(
        command(tmp_path, *flags, name="plan"), capture_output=True, text=True, check=True
    )
    assert done.stdout == plain.stdout, done.stderr


def test_the_error_without_debian_says_what_to_do(checkout, tmp_path):
    link(tmp_path / "bin", [pathlib.Path(shutil.which(n)) for n in ("bash", "cmp", "dirname")])
    done = ran(checkout, env={"PATH": str(tmp_path / "bin")})
    assert done.returncode == 1
    assert "apt-get install bazel-bootstrap bazel-rules-java bazel-rules-proto" in done.stderr
