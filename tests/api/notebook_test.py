"""Runs the cells of docs/quickstart.ipynb in order; the committed outputs are from such a run.

No Jupyter is installed here, so the cells run in this process, as a kernel would run them.
"""

import json
import pathlib

import pytest

from tests.support import notebook

FILE = pathlib.Path("docs/quickstart.ipynb")


def texts(cell):
    return "".join(line for each in cell["outputs"] for line in each.get("text", []))


@pytest.mark.usefixtures("fashion_mnist")
def test_the_cells_run_in_order(tmp_path):
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    done = notebook.run(kept, tmp_path)
    old, new = (
        [cell for cell in each["cells"] if cell["cell_type"] == "code"] for each in (kept, done)
    )
    # The plan is arithmetic, so that it is the same everywhere; the accuracy is not.
    assert texts(new[0]) == texts(old[0])
    kinds = [[output["output_type"] for output in cell["outputs"]] for cell in old]
    assert [[output["output_type"] for output in cell["outputs"]] for cell in new] == kinds
    assert [cell["execution_count"] for cell in old] == list(range(1, len(old) + 1))
    assert "top-1 0.8" in texts(old[1])
    assert "top-1 0." in texts(new[1])
    for cells in (old, new):
        assert "trainer.load('runs/quickstart'" in texts(cells[1])
    assert (tmp_path / "runs" / "quickstart" / "result.json").exists()


def test_a_cell_that_fails_raises_its_error(tmp_path):
    cell = {"cell_type": "code", "source": ["1 / 0"], "metadata": {}, "outputs": []}
    with pytest.raises(ZeroDivisionError):
        notebook.run({"cells": [cell]}, tmp_path)
