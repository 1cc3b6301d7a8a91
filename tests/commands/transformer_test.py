"""A small vision transformer with stochastic depth, from the command line to its export."""

import keras
import numpy as np
import pytest

from tests.support.configs import done
from tests.support.runs import CONSTANT, SHORT, as_of, points
from trainer.nn.models import vision_transformer
from trainer.nn.models.vision_transformer import Size

FLAGS = [
    *SHORT,
    *CONSTANT,
    *("--epochs=0.05", "--model=vit_ti_7", "--drop_path=0.2", "--optimizer=adamw"),
    *("--base_learning_rate=0.01", "--micro_batch_size=64", "--log_every_updates=1"),
    *("--strategy=one_device", "--eval_every_epochs=0.024"),
]
HALF = 3  # Of 7 updates, the one at the first evaluation, which has a checkpoint.


@pytest.fixture
def small(monkeypatch):
    """Makes vit_ti small; the run is in this process."""
    monkeypatch.setitem(vision_transformer.SIZES, "ti", Size(24, 3, 2))


@pytest.mark.usefixtures("small")
def test_it_trains_resumes_and_exports_layers_of_keras_alone(capsys, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    status, _, error = done(capsys, "train", *FLAGS, f"--model_dir={whole}")
    assert status == 0, error
    as_of(whole, resumed, HALF)
    status, out, error = done(capsys, "train", *FLAGS, f"--model_dir={resumed}")
    assert status == 0, error
    assert f"resumed at update {HALF}" in out
    losses, again = ([p["loss"] for p in points(run)] for run in (whole, resumed))
    assert losses[0] == pytest.approx(np.log(10), rel=1e-5)  # The head starts at zero.
    assert losses[-1] < losses[0] - 0.1
    np.testing.assert_allclose(again, losses, rtol=1e-5)
    status, out, error = done(capsys, "export", f"--model_dir={whole}")
    assert status == 0, error
    assert "first import" not in out
    model = keras.models.load_model(whole / "export" / "model.keras")
    assert {type(layer).__module__.partition(".")[0] for layer in model._flatten_layers()} == {
        "keras"
    }
    status, out, error = done(capsys, "evaluate", f"--model_dir={whole}")
    assert status == 0, error
    assert f"{points(whole, 'eval')[-1]['top1']:.4f}" in out


def test_a_patch_that_does_not_divide_is_refused(capsys, tmp_path):
    flags = [*FLAGS, "--model=vit_ti_16", f"--model_dir={tmp_path}/run"]
    status, _, error = done(capsys, "train", *flags)
    assert status == 2
    assert "patches of 16×16 pixels do not divide images of 28×28" in error
