"""The public names: few, imported when first used, and in the documents."""

import subprocess
import sys

import pytest

import trainer


def modules_after(code):
    """Returns the modules that a new process has imported after `code`."""
    code = f"import sys; before = {{*sys.modules}}; {code}; print(*({{*sys.modules}} - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}, done.stdout.split()


def test_importing_costs_nothing():
    packages, modules = modules_after("import trainer; dir(trainer)")
    assert [name for name in modules if name.startswith("trainer")] == ["trainer"]
    assert packages <= {*sys.stdlib_module_names, "trainer"}


def test_an_error_class_costs_nothing():
    packages, _ = modules_after("import trainer; trainer.UserError")
    assert packages <= {*sys.stdlib_module_names, "trainer"}


def test_plan_does_not_import_tensorflow():
    packages, _ = modules_after("import trainer; trainer.plan(epochs=1)")
    assert "tensorflow" not in packages


def test_each_public_name_exists():
    assert {*trainer.__all__} <= {*dir(trainer)}
    for name in trainer.__all__:
        assert getattr(trainer, name).__doc__


def test_no_public_name_hides_a_folder():
    import pkgutil

    assert not {*trainer.__all__} & {each.name for each in pkgutil.iter_modules(trainer.__path__)}


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        trainer.trian  # noqa: B018


def test_keras_with_another_backend_is_refused(monkeypatch):
    import keras

    from trainer.api import keras_backend

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(trainer.UserError, match="backend jax"):
        keras_backend.prepare()
