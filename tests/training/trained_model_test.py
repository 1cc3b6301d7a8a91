"""A run's checkpoint and its export load as the same model, with the same class names."""

import json

import numpy as np
import tensorflow as tf

from tests.support.configs import done, parsed
from trainer.data.bad_examples import BadExamples
from trainer.run_dir import model_source
from trainer.training import trained_model

IMAGES = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1), np.uint8)


def loaded(*flags):
    asked = parsed(*flags, command="predict")
    config = model_source.with_kept_flags("predict", asked, flags)
    folder = model_source.run_or_export(config)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    return trained_model.load(config, folder, strategy, BadExamples(skip=False))


def test_a_run_and_its_export(capsys, uninterrupted, tmp_path, logged):
    run, export = uninterrupted[0], tmp_path / "export"
    status, _, error = done(
        capsys, "export", f"--model_dir={run}", f"--export_dir={export}", "--checkpoint=170"
    )
    assert status == 0, error
    logged.clear()
    one = loaded(f"--model_dir={run}", "--checkpoint=170")
    other = loaded(f"--export_dir={export}")
    logits = one.model(IMAGES, training=False)
    np.testing.assert_allclose(other.model(IMAGES, training=False), logits, rtol=1e-5, atol=1e-6)
    assert one.path == run / "checkpoints" / "000000170"
    assert other.path == export
    for trained in (one, other):
        assert trained.image_shape == (28, 28, 1)
        assert trained.classes == len(trained.class_names) == 10
        assert trained.class_names[0] == "T-shirt/top"
    best = json.loads((run / "result.json").read_text())["best"]
    text = f"the best evaluation has top1 {best['top1']:.4f}, at update 178"
    assert one.choice == f"takes {one.path}; {text}, which --checkpoint=best takes"
    assert other.choice == f"takes {export}, which holds update 170; {text}"
    assert logged == []


def test_an_export_of_an_old_version_takes_the_names_of_its_data(
    capsys, uninterrupted, tmp_path, logged
):
    export = tmp_path / "export"
    done(capsys, "export", f"--model_dir={uninterrupted[0]}", f"--export_dir={export}")
    about = json.loads((export / "export.json").read_text())
    for name in ("class_names", "best"):
        del about[name]
    (export / "export.json").write_text(json.dumps(about))
    logged.clear()
    trained = loaded(f"--export_dir={export}")
    assert trained.class_names[9] == "Ankle boot"
    assert trained.choice == f"takes {export}, which holds update 178"
    (message,) = logged
    assert "the model keeps no class names, and takes those of fashion_mnist's" in message
