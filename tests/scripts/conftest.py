"""Fixtures for the tests of submit_tpu.sh."""

import shutil

import pytest

from tests.support.tpu_job import Cloud


@pytest.fixture(scope="module")
def job_checkout(tmp_path_factory):
    """A copy of the files that a job needs, so that its logs are not in this checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("flags", "scripts", "trainer"):
        shutil.copytree(name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(name, folder)
    return folder


@pytest.fixture
def cloud(tmp_path, job_checkout):
    """A stand-in for the cloud, where everything succeeds."""
    shutil.rmtree(job_checkout / "runs", ignore_errors=True)
    made = Cloud(tmp_path, job_checkout)
    yield made
    made.end_machines()
