import pytest

from tests.support.configs import parsed
from trainer.config.flagfile import learned_differences, to_flagfile
from trainer.config.training_targets import described
from trainer.errors import UserError


@pytest.mark.parametrize(
    ("flags", "first", "remedy"),
    [
        (
            "--augment=flip,mixup,cutmix --ghost_batch_size=1",
            "--augment=flip,mixup,cutmix mixes the images of a ghost batch, and "
            "--ghost_batch_size=1 leaves no second image.",
            "Raise --ghost_batch_size to 2 or more, or leave mixup and cutmix out.",
        ),
        (
            "--sigmoid_reduction=mean",
            "--sigmoid_reduction=mean is for --loss=sigmoid, not for --loss=softmax.",
            "Give --loss=sigmoid, or leave --sigmoid_reduction out.",
        ),
        (
            "--sigmoid_threshold=0.2 --augment=mixup",
            "--sigmoid_threshold=0.2 is for --loss=sigmoid, not for --loss=softmax.",
            "Give --loss=sigmoid, or leave --sigmoid_threshold out.",
        ),
        (
            "--loss=sigmoid --sigmoid_threshold=0.2 --augment=medium",
            "--sigmoid_threshold=0.2 is a share of a mixed image, and --augment=medium mixes no "
            "images.",
            "Add mixup or cutmix to --augment, or leave --sigmoid_threshold out.",
        ),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, first, remedy):
    with pytest.raises(UserError) as error:
        parsed(*flags.split())
    assert str(error.value).splitlines() == [first, remedy]


def test_the_default_has_no_lines():
    assert described(parsed("--augment=medium", "--label_smoothing=0.1")) == []


def test_mixing_and_the_loss_have_a_line_each():
    flags = ["--augment=mixup", "--loss=sigmoid"]
    assert described(parsed(*flags)) == [
        "mixing: mixup with alpha 0.2, in each ghost batch of 32; the top1 of training counts the "
        "label with the larger share",
        "loss: binary cross-entropy summed over classes; noise_scale does not depend on the loss",
    ]
    more = ["--augment=cutmix,mixup", "--sigmoid_reduction=mean", "--sigmoid_threshold=0.2"]
    assert described(parsed(*flags, *more)) == [
        "mixing: mixup with alpha 0.2 or cutmix with alpha 1, one drawn for each ghost batch of "
        "32; the top1 of training counts the label with the larger share",
        "loss: binary cross-entropy averaged over classes; the target of a share above 0.2 is 1; "
        "noise_scale does not depend on the loss",
    ]


def test_an_older_run_resumes_with_the_defaults_alone():
    config = parsed("--order_version=2")
    older = "".join(
        line
        for line in to_flagfile(config).splitlines(keepends=True)
        if not line.startswith(("--loss", "--sigmoid_", "--mixup_", "--cutmix_"))
    )
    assert learned_differences(older, to_flagfile(config)) == []
    other = to_flagfile(parsed("--order_version=2", "--loss=sigmoid"))
    assert learned_differences(older, other) == ["--loss: softmax → sigmoid"]
