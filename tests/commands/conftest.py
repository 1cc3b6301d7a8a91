"""Runs as a kill leaves them, without the time that it takes to kill one."""

import shutil

import pytest

from tests.support.runs import checkpoints


@pytest.fixture
def as_of():
    """Copies a run whose newest checkpoint is that of an update, as a kill leaves it.

    The points that it logged after this checkpoint are there: the run that resumes repeats them.
    """

    def copied(run, folder, update):
        shutil.copytree(run, folder)
        (folder / "result.json").unlink()
        later = [path for path in checkpoints(folder) if int(path.stem) > update]
        for path in later:
            shutil.rmtree(path)
        assert later
        assert int(checkpoints(folder)[-1].stem) == update
        return folder

    return copied
