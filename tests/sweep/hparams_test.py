"""Tests of the HParams table as TensorBoard serves it over HTTP."""

import json
import urllib.request

import pytest
from tensorboard import default, program

from trainer.sweep import hparams

RESULTS = {"top1": 0.9, "loss": 0.25, "updates": 120, "seconds": 7.5}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    for seed in ("0", "1"):
        run = folder / f"augment=none,batch=128,seed={seed}"
        flags = {"augment": "none", "initial_batch_size": "128", "seed": seed}
        hparams.write(run, flags, None)
        hparams.write(run, flags, RESULTS)  # Replaces the failure.
    flags = {"augment": "strong", "initial_batch_size": "256", "seed": "0"}
    hparams.write(folder / "augment=strong,batch=256,seed=0", flags, None)
    board = program.TensorBoard(default.get_plugins())
    board.configure(logdir=str(folder), port=0, host="localhost", load_fast="false")
    url = board.launch()

    def asked(path, **body):
        request = urllib.request.Request(
            f"{url}data/plugin/hparams/{path}",
            json.dumps(body | {"includeMetrics": True}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    return asked


def test_the_columns_are_the_swept_flags_and_the_results(table):
    columns = table("experiment", experimentName="")
    types = {info["name"]: info["type"] for info in columns["hparamInfos"]}
    assert types == {
        "augment": "DATA_TYPE_STRING",
        "initial_batch_size": "DATA_TYPE_FLOAT64",
        "seed": "DATA_TYPE_FLOAT64",
    }
    assert {info["name"]["tag"] for info in columns["metricInfos"]} == set(RESULTS)


def test_the_rows_are_the_points(table):
    rows = table(
        "session_groups",
        experimentName="",
        allowedStatuses=["STATUS_SUCCESS", "STATUS_FAILURE"],
        colParams=[],
        startIndex=0,
        sliceSize=10,
    )["sessionGroups"]
    found = {
        row["name"]: (
            row["hparams"],
            {value["name"]["tag"]: value["value"] for value in row.get("metricValues", [])},
            [session["status"] for session in row["sessions"]],
        )
        for row in rows
    }
    assert len(found) == 3
    for seed in (0.0, 1.0):
        flags, results, statuses = found[f"augment=none,batch=128,seed={seed:.0f}"]
        assert flags == {"augment": "none", "initial_batch_size": 128.0, "seed": seed}
        assert results == pytest.approx(RESULTS)
        assert statuses == ["STATUS_SUCCESS"]
    flags, results, statuses = found["augment=strong,batch=256,seed=0"]
    assert (flags["augment"], results, statuses) == ("strong", {}, ["STATUS_FAILURE"])
