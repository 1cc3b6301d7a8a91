import json

import pytest

from trainer import micro_batch
from trainer.schedule.realize import Limits


@pytest.mark.parametrize(
    ("share", "ghost", "wanted"),
    [
        (128, 32, [64, 128]),
        (640, 32, [64, 128, 160]),
        (3200, 32, [64, 128, 160]),
        (32, 32, [32]),
        (1024, 512, [512]),
        (5120, 64, [64, 128, 256]),
    ],
)
def test_candidates_are_multiples_of_the_ghost_that_divide(share, ghost, wanted):
    assert micro_batch.candidates(share, ghost) == wanted


def test_a_kept_choice_is_not_measured_again(tmp_path):
    class Strategy:
        num_replicas_in_sync = 2

    class Step:
        strategy = Strategy()

    path = tmp_path / "micro_batch.json"
    path.write_text(json.dumps({"micro_batch_size": 96, "replicas": 2}))
    never = lambda position, size: pytest.fail("measured")  # noqa: E731
    assert (
        micro_batch.choose(path, Step(), never, limits=Limits(384, 384, 0), ghost_batch_size=32)
        == 96
    )
