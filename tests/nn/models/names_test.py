import pytest

from trainer.nn.models import names, registry
from trainer.nn.models.application import constructors
from trainer.nn.models.vision_transformer import SIZES


def test_all_names_may_exist():
    own = [*registry._OWN, *names.ALIASES, "wide_resnet_16_4", *(f"vit_{s}_16" for s in SIZES)]
    assert all(map(names.is_own, own))
    assert all(map(names.may_exist, [*own, *constructors(), "own_models:net", "python:model"]))


@pytest.mark.parametrize("name", ["vit_l_16", "vit_s_0", "wide_resnet_16", "resnet_5", "zzz", ""])
def test_other_names_do_not(name):
    assert not names.may_exist(name)
