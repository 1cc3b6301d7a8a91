"""Frozen layers join the training at --unfreeze_epochs, in one go and across kills."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.support.configs import done
from tests.support.runs import (
    CONSTANT,
    OFTEN,
    SHORT,
    checkpoints,
    digest,
    kill_after,
    points,
    result,
    started,
    train,
)

# 125 updates an epoch; the layers join before update 63.
FLAGS = [*SHORT, *CONSTANT, "--epochs=1", "--freeze=(?!dense)", "--unfreeze_epochs=0.5"]
JOIN = 62


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases") / "whole"
    return folder, train(folder, *FLAGS, OFTEN, "--keep_checkpoints=200")


def variables(path, group):
    """Returns the values of a group of variables in a checkpoint."""
    reader = tf.train.load_checkpoint(str(path / "checkpoint"))
    names = [f"{group}/{i}/.ATTRIBUTES/VARIABLE_VALUE" for i in itertools.count()]
    kept = reader.get_variable_to_shape_map()
    return [reader.get_tensor(n) for n in itertools.takewhile(kept.__contains__, names)]
