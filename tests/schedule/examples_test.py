"""Examples in the docstrings of trainer/schedule: they run, and every schedule has one."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import trainer.schedule

MODULES = [module.name for module in pkgutil.iter_modules(trainer.schedule.__path__)]
SCHEDULES = ("anneal", "momentum", "warmup", "plateau_controller", "noise_controller")


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(f"trainer.schedule.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_public_schedule_has_an_example(name):
    module = importlib.import_module(f"trainer.schedule.{name}")
    for public, value in vars(module).items():
        if getattr(value, "__module__", "") == module.__name__ and not public.startswith("_"):
            assert ">>> " in inspect.getdoc(value), public
