import pytest

from tests.support.configs import parsed
from trainer.config import augment_list, command_line
from trainer.config.augment_list import Augmentation
from trainer.config.flags import FLAGS
from trainer.errors import UserError


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none", Augmentation()),
        ("medium", Augmentation(crop=True, flip=True)),
        ("crop,flip", Augmentation(crop=True, flip=True)),
        ("flip, crop", Augmentation(crop=True, flip=True)),
        ("flip", Augmentation(flip=True)),
        ("strong", Augmentation(strong=True)),
        ("imagenet", Augmentation(resized_crop=True)),
        ("medium,randaugment", Augmentation(crop=True, flip=True, policy="randaugment")),
        (
            "erasing,imagenet,trivialaugment",
            Augmentation(resized_crop=True, policy="trivialaugment", erasing=True),
        ),
    ],
)
def test_a_list_names_what_happens_in_any_order(text, wanted):
    assert augment_list.problem(text) == ""
    assert augment_list.parse(text) == parsed(f"--augment={text}").augmentation == wanted


def test_flags_set_the_numbers():
    found = parsed(
        "--augment=crop,randaugment,erasing",
        "--randaugment_layers=3",
        "--randaugment_magnitude=5.5",
        "--erasing_probability=0.25",
        "--erasing_area=0.1,0.2",
    ).augmentation
    assert found == Augmentation(
        crop=True,
        policy="randaugment",
        erasing=True,
        layers=3,
        magnitude=5.5,
        erasing_probability=0.25,
        erasing_area=(0.1, 0.2),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--augment=heavy", "flag --augment=heavy: has no 'heavy': use none, medium, strong, imag"),
        ("--augment=", "flag --augment=: has no ''"),
        ("--augment=crop,", "has no ''"),
        ("--augment=crop,flip,crop", "has crop twice: leave one out"),
        ("--augment=medium,strong", "has medium and strong, which exclude each other"),
        ("--augment=flip,none", "has none, which excludes flip: leave one of them out"),
        ("--augment=medium,flip", "has medium, which excludes flip"),
        ("--augment=imagenet,crop,erasing", "has imagenet, which excludes crop"),
        ("--augment=strong,randaugment", "has strong, which excludes randaugment"),
        ("--augment=randaugment,trivialaugment", "has randaugment, which excludes trivialaugment"),
        ("--randaugment_layers=0", "flag --randaugment_layers=0: must be from 1 to 8"),
        ("--randaugment_magnitude=nan", "must be from 0 to 10"),
        ("--erasing_probability=0", "must be above 0 and at most 1"),
        ("--erasing_area=0.1", "flag --erasing_area=0.1: must be two numbers, for example"),
        ("--erasing_area=0.3,0.2", "must be two numbers, 0 < lowest <= highest <= 1"),
        ("--erasing_area=0.1,nan", "must be two numbers"),
        ("--mixup_alpha=0", "must be above 0"),
        (
            "--augment=trivialaugment --randaugment_magnitude=5",
            "--randaugment_magnitude=5.0 is for --augment=randaugment, not for "
            "--augment=trivialaugment: give --randaugment_magnitude=9.0, the default.",
        ),
        (
            "--augment=crop --mixup_alpha=3",
            "give --augment=crop,mixup or --mixup_alpha=0.2, the default.",
        ),
        ("--augment=none --mixup_alpha=3", "give --augment=mixup or --mixup_alpha=0.2, the"),
        ("--augment=strong --erasing_probability=1", "strong: give --erasing_probability=0.5, the"),
        ("--erasing_area=0.1,0.2", "--erasing_area=0.1,0.2 is for --augment=erasing, not for"),
    ],
)
def test_what_does_not_fit_is_rejected(arguments, message):
    with pytest.raises(UserError) as error:
        parsed(*arguments.split(" "))
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) <= 2


def test_evaluation_takes_another_list_than_the_run():
    kept = ["--augment=crop,randaugment", "--randaugment_magnitude=5"]
    found = command_line.parse("evaluate", ["--augment=none"], kept)
    assert (found.augment, found.randaugment_magnitude) == ("none", 5)


def test_the_default_of_each_number_is_that_of_the_list():
    assert parsed().augmentation == Augmentation()
    assert {*augment_list.FLAG_OF} <= {*FLAGS}
    assert {*augment_list.FLAG_OF.values()} <= {*augment_list.ITEMS}
