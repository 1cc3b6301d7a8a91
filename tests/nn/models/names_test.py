import pytest

from trainer.errors import UserError
from trainer.nn.models import names, registry
from trainer.nn.models.application import constructors
from trainer.nn.models.vision_transformer import SIZES


def test_the_models_have_the_names():
    assert set(registry._OWN) == set(names.NAMED)


def test_all_names_may_exist():
    own = [*registry._OWN, *names.ALIASES, "wide_resnet_16_4", *(f"vit_{s}_16" for s in SIZES)]
    assert all(map(names.is_own, own))
    assert all(map(names.may_exist, [*own, *constructors(), "own_models:net", "python:model"]))


@pytest.mark.parametrize(
    "name", ["vit_l_16", "vit_s_0", "wide_resnet_16", "resnet_5", "zzz", "", ":", "x:", ":x"]
)
def test_other_names_do_not(name):
    assert not names.may_exist(name)


def test_numbers_of_thousands_of_digits_are_not_sizes():
    """Python refuses to read a number of more than 4,300 digits."""
    assert not any(map(names.is_own, ["vit_s_" + 5000 * "1", "wide_resnet_10_" + 5000 * "1"]))


@pytest.mark.parametrize(
    ("depth", "near"), [(18, "16 or 22"), (4, "10"), (5, "10"), (0, "10"), (27, "22 or 28")]
)
def test_invalid_depths_are_refused_with_the_nearest(depth, near):
    with pytest.raises(UserError, match=f"depth {depth} .*: use {near}$"):
        names.check_sizes(f"wide_resnet_{depth}_1")


def test_a_width_below_one_is_refused():
    with pytest.raises(UserError, match="width 0"):
        names.check_sizes("wide_resnet_16_0")


@pytest.mark.parametrize("name", ["wide_resnet_16_4", "vit_s_16", "resnet_50", "own:net"])
def test_other_sizes_are_not_refused(name):
    names.check_sizes(name)
