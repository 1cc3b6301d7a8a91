"""Runs the cells of a notebook in order, in this process; as a program, writes their outputs.

    python -m tests.support.notebook docs/quickstart.ipynb

The environment has no Jupyter. So this module knows only what the notebook needs: text that cells
print, and figures of matplotlib.
"""

import base64
import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile

_DPI = 70


def run(notebook, folder):
    """Returns the notebook with the outputs of its cells, which run in `folder`."""
    names = {"__name__": "__main__"}
    done, count = [], 0
    before = os.getcwd()
    os.chdir(folder)
    try:
        for number, cell in enumerate(notebook["cells"], start=1):
            if cell["cell_type"] == "code":
                count += 1
                code = compile("".join(cell["source"]), f"cell {number}", "exec")
                outputs = _outputs(code, names, count)
                cell = {**cell, "execution_count": count, "outputs": outputs}
            done.append(cell)
    finally:
        os.chdir(before)
    return {**notebook, "cells": done}


def _outputs(code, names, count):
    """Runs a cell; returns what it printed to stdout, and the figures that it made."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    found = []
    if printed.getvalue():
        lines = printed.getvalue().splitlines(keepends=True)
        found.append({"name": "stdout", "output_type": "stream", "text": lines})
    for number in plt.get_fignums():
        picture = io.BytesIO()
        plt.figure(number).savefig(picture, format="png", dpi=_DPI, bbox_inches="tight")
        data = {"image/png": base64.b64encode(picture.getvalue()).decode()}
        found.append({"output_type": "display_data", "data": data, "metadata": {}})
    plt.close("all")
    return found


def main(path):
    file = pathlib.Path(path)
    with tempfile.TemporaryDirectory() as folder:
        done = run(json.loads(file.read_text(encoding="utf-8")), folder)
    file.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
