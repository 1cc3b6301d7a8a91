import functools
import json
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.support import messages
from tests.support.configs import parsed
from tests.support.models import huge
from tests.support.runs import command, result
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.strategy import mirrored
from trainer.errors import UserError
from trainer.nn.ghostify import ghostify
from trainer.nn.losses import TrainingLoss
from trainer.schedule import trajectory
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.realize import BatchLimits
from trainer.schedule.stretch import Stretch
from trainer.system import memory
from trainer.training import loop, micro_batch_search
from trainer.training.step import TrainingStep

GIGABYTE = 10**9


@pytest.mark.parametrize(
    ("share", "ghost", "most", "wanted"),
    [
        (128, 32, 256, [32, 64, 128]),
        (640, 32, 256, [32, 64, 128]),
        (480, 32, 256, [32, 96, 160]),
        (32, 32, 256, [32]),
        (1024, 512, 256, [512]),
        (5120, 64, 256, [64, 128, 256]),
        (2048, 32, 2048, [32, 64, 128, 256, 512, 1024, 2048]),
        (3200, 32, 3200, [32, 64, 128, 320, 640, 1600, 3200]),
    ],
)
def test_candidates_about_double_and_divide(share, ghost, most, wanted):
    assert micro_batch_search.candidates(share, ghost, most) == wanted


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--deterministic"], {None: 128}),
        (["--deterministic", "--ghost_batch_size=256", "--base_batch_size=256"], {None: 256}),
        (["--deterministic", "--image_sizes=14@0,28@1"], {14: 128, 28: 128}),
        (["--micro_batch_size=32"], {None: 32}),
        (["--anneal=measured"], {None: 64}),  # Of 128, so that two micro-batches differ.
    ],
)
def test_nothing_is_measured_if_the_size_is_known(tmp_path, flags, wanted):
    config = parsed(*flags)
    schedule = trajectory.from_config(config, 4_000, 1)
    step, batches = (functools.partial(pytest.fail, f"{name} is used") for name in ("step", "data"))
    parts = config, tmp_path, schedule, step, batches, ProcessGroup(), [], 1
    assert micro_batch_search.from_config(*parts) == wanted


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (["--micro_batch_size=256"], "Use --micro_batch_size=128 or less, or 0 for the fastest"),
        (["--micro_batch_size=0"], "Use --micro_batch_size=128 or less."),
        (["--deterministic"], "Use --micro_batch_size=128 or less."),
        (["--micro_batch_size=256", "--deterministic"], "Use --micro_batch_size=128 or less."),
        (
            ["--micro_batch_size=256", "--ghost_batch_size=256"],
            "Begin a run with a smaller --ghost",
        ),
    ],
)
def test_a_micro_batch_above_the_memory_is_refused_with_another_value_of_its_flag(flags, remedy):
    stretch = Stretch(0, (Setting(256, 0.1, 0.9),), Layout(1, 256, 1))
    what, found = loop._out_of_memory_texts(parsed(*flags), stretch)
    assert what == "a micro-batch of 256 examples"
    assert found.startswith(remedy)


def test_a_kept_size_builds_no_step(tmp_path):
    (tmp_path / "micro_batch.json").write_text('{"micro_batch_size": 64, "replicas": 1}')
    schedule = trajectory.from_config(parsed(), 4_000, 1)
    step, batches = (functools.partial(pytest.fail, f"{name} is used") for name in ("step", "data"))
    parts = parsed(), tmp_path, schedule, step, batches, ProcessGroup(), [], 1
    assert micro_batch_search.from_config(*parts) == {None: 64}


def step_of(cpus, most, replicas=1):
    """A step in which a pass of more than `most` examples finds no memory."""
    strategy = mirrored(cpus[:replicas]) if replicas > 1 else tf.distribute.OneDeviceStrategy("CPU")
    with strategy.scope():
        keras.utils.set_random_seed(3)
        model = huge((6, 6, 1), 3, most)
        ghostify(model, ghost_batch_size=16, decay=0.9, kernel="fused")
    return TrainingStep(
        strategy, model, optimizer="momentum", weight_decay=0.0, loss=TrainingLoss(), seed=0
    )


def batches(position, size):
    images = np.random.default_rng(position).integers(0, 256, (size, 6, 6, 1), np.uint8)
    element = (images, np.arange(size) % 3, np.int64(position))
    return iter(tf.data.Dataset.from_tensors(element).repeat())


def choose(path, step, largest=128):
    """Returns the choice, and the messages besides those of what is measured."""
    limits = BatchLimits(largest, largest, 0)
    with messages.logged() as found:
        chosen = micro_batch_search.choose(
            *(path / "micro_batch.json", lambda: step, batches),
            replicas=step.strategy.num_replicas_in_sync,
            limits=limits,
            ghost_batch_size=16,
            model="tests.support.models:huge",
            before=memory.memory_usage(step.strategy.extended.worker_devices),
        )
    return chosen, [line for line in found if not line.startswith("measuring a micro-batch of ")]


def losses(step, size=32):
    layout = Layout(step.strategy.num_replicas_in_sync, size, 2)
    batch_size = layout.replicas * size * 2
    stretch = Stretch(0, (Setting(batch_size, 0.1, 0.9),) * 2, layout)
    return step.run(batches(0, size), stretch).loss.tolist()


@pytest.mark.parametrize(
    ("replicas", "why"),
    [
        (1, "fastest of 16, 32, 64; 128 does not fit in memory"),
        (2, "fastest of 16, 32, 64"),
    ],
)
def test_the_fastest_that_fits_is_kept_and_the_step_is_as_before(cpus, tmp_path, replicas, why):
    """Passes of 128 ask for 10¹⁵ bytes, which are refused."""
    step = step_of(cpus, 64, replicas)
    assert choose(tmp_path, step) == (64, [f"micro-batch 64: {why}"])
    kept = json.loads((tmp_path / "micro_batch.json").read_text())
    assert (kept["replicas"], kept["why"]) == (replicas, why)
    assert [each["micro_batch_size"] for each in kept["tried"]] == [16, 32, 64]
    rates = [each["examples_per_second"] for each in kept["tried"]]
    # A pass takes 0.05 s or more.
    assert all(r < replicas * b / 0.05 for r, b in zip(rates, (16, 32, 64), strict=True))
    assert rates == sorted(rates)
    assert all(each["peak_bytes"] > 10**8 for each in kept["tried"])
    assert losses(step) == losses(step_of(cpus, 64, replicas))


def test_none_that_fits_is_refused(cpus, tmp_path):
    with pytest.raises(UserError) as error:
        choose(tmp_path, step_of(cpus, 15))
    line, remedy = str(error.value).splitlines()
    assert line.startswith("a micro-batch of 16 examples does not fit in the ")
    assert line.endswith(" GB of memory that are free with --model=tests.support.models:huge.")
    assert "Begin a run with a smaller --ghost_batch_size, --image_size or --image_sizes" in remedy
    assert not (tmp_path / "micro_batch.json").exists()


def test_a_size_that_gains_nothing_ends_the_search(cpus, tmp_path, monkeypatch):
    rates = {16: 100.0, 32: 104.0, 64: 106.0}  # 128 is not asked for
    monkeypatch.setattr(
        micro_batch_search, "_rate", lambda step, iterator, examples: rates[examples]
    )
    assert choose(tmp_path, step_of(cpus, 64)) == (64, ["micro-batch 64: fastest of 16, 32, 64"])


def test_what_would_not_fit_is_not_tried(cpus, tmp_path, monkeypatch):
    """Each size takes 0.1 GB and 0.01 GB an example, of the 1 GB that was free at the start."""
    now, limit = 5 * GIGABYTE, 6.0 * GIGABYTE
    peak = now

    def rate(step, iterator, examples):
        nonlocal peak
        peak = now + GIGABYTE // 10 + examples * GIGABYTE // 100
        return float(examples)

    monkeypatch.setattr(micro_batch_search, "_rate", rate)
    monkeypatch.setattr(memory, "memory_usage", lambda devices: [memory.Use(peak, peak, limit)])
    chosen, (said,) = choose(tmp_path, step_of(cpus, 64))
    assert chosen == 32
    assert said == (
        "micro-batch 32: fastest of 16, 32; 64 was not tried: "
        "it would take 0.8 GB of the 1.0 GB that are free"
    )


def test_a_kept_choice_holds_for_as_many_replicas(cpus, tmp_path, monkeypatch):
    monkeypatch.setattr(
        micro_batch_search, "_rate", lambda step, iterator, examples: float(examples)
    )
    path = tmp_path / "micro_batch.json"
    path.write_text(json.dumps({"micro_batch_size": 96, "replicas": 1}))  # as older versions do
    assert choose(tmp_path, step_of(cpus, 64)) == (96, [])
    chosen, said = choose(tmp_path, step_of(cpus, 64, replicas=2))
    assert (chosen, len(said)) == (64, 1)
    assert choose(tmp_path, step_of(cpus, 64, replicas=2)) == (64, [])
    for damage in (0, 8, 10**9, 10**400, True, "64", None):
        path.write_text(json.dumps({"micro_batch_size": damage, "replicas": 1}))
        chosen, said = choose(tmp_path, step_of(cpus, 64))
        assert (chosen, len(said)) == (128, 1 if damage in (8, 10**9) else 2)


SHORT = [
    *("--train_split=train[:4096]", "--eval_split=test[:100]", "--epochs=0.2"),
    *("--base_batch_size=512", "--model=tests.support.models:hungry", "--ghost_batch_size=128"),
]


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """Results of two runs whose address space the model limits: outputs, status, run directory.

    Allocators reserve little of it. Both run at once, because TensorFlow waits ten seconds for
    memory.
    """
    started = {}
    for name, own in {"measured": [], "given": ["--micro_batch_size=512"]}.items():
        folder = tmp_path_factory.mktemp(name)
        line = ["env", "MALLOC_ARENA_MAX=2", *command(folder / "run", *SHORT, *own)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started[name] = folder / "run", subprocess.Popen(line, **pipes)
    return {
        name: (*process.communicate(), process.returncode, run)
        for name, (run, process) in started.items()
    }


def test_under_a_memory_limit(limited):
    """Leaves out 256 examples, which would take all memory, so that the next allocation fails."""
    output, errors, status, run = limited["measured"]
    assert status == 0, errors
    (first,) = (line for line in output.splitlines() if line.startswith("micro-batch "))
    assert first.startswith("micro-batch 128: 256 was not tried: it would take ")
    assert "measuring a micro-batch of 128" in output
    assert first.endswith(" GB of the 1.5 GB that are free")
    assert result(run)["micro_batch_size"] == 128


def test_a_size_that_the_user_gave_does_not_fit(limited):
    _, errors, status, _ = limited["given"]
    assert status == 2, errors
    line, remedy = errors.splitlines()[-2:]
    assert line == "crescendo train: a micro-batch of 512 examples does not fit in memory."
    assert remedy == "Use --micro_batch_size=256 or less, or 0 for the fastest that fits."
