"""Every flag of the program, declared once as a field of Config; run_flags.py has the others."""

import dataclasses
import re
from collections.abc import Mapping

from trainer.config import local_path
from trainer.config.declaration import (
    EPOCHS,
    POSITIVE,
    READING,
    TRAINING,
    Flag,
    Group,
    Scope,
    at_least,
    flags_of,
    must_be,
)
from trainer.config.run_flags import RunFlags

_run = Group("Run", Scope.FREE, TRAINING)
_devices = Group("Devices", Scope.MACHINE, (*TRAINING, *READING))
_checkpoint = Group("Checkpoint", Scope.CALL, READING)
_output = Group("Output", Scope.CALL, ("plan",))
_cost = Group("Predicted time", Scope.CALL, ("plan",))
_sweep = Group("Sweep", Scope.CALL, ("sweep",))
_report = Group("Report", Scope.CALL, ("report",))

_tpu_name = must_be(
    "a name of small letters, digits and dashes",
    lambda value: re.fullmatch(r"[a-z]([-a-z0-9.:]*[a-z0-9])?", value) is not None,
)


def _path(value: str) -> str:
    if value.startswith("~"):
        return "the shell leaves ~ as it is behind a =: write $HOME"
    return local_path.problem(value)


def _page(value: str) -> str:
    # Its figures are in a folder of the same name without the suffix.
    return _path(value) or ("" if re.search(r"[^/]\.html$", value) else "must end with .html")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
    """Command line of the user: a field for each flag; the flag's help gives the unit.

    Attributes:
      given: the flags that the command line set, those of its flagfiles included, as
        --name=value by name.
    """

    given: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    model_dir: str | None = _run(
        None,
        "Folder of the run; the same folder again resumes the run.",
        problem=_path,
        scope=Scope.MACHINE,
        commands=(*TRAINING, *READING),
    )
    micro_batch_size: int = _run(
        0,
        "Largest number of examples that a replica takes through one forward and backward pass "
        "(0: the fastest that fits in memory, measured; with --deterministic, 128 or the ghost "
        "batch if that is larger; with --anneal=measured, at most 128 and half of the first "
        "batch).",
        problem=at_least(0),
        decides="measured",
    )
    checkpoint_minutes: float = _run(
        10.0,
        "Time between checkpoints, in minutes; each evaluation has one besides.",
        problem=POSITIVE,
    )
    keep_checkpoints: int = _run(3, "Number of newest checkpoints that are kept.", problem=POSITIVE)
    eval_every_epochs: float = _run(
        1.0,
        "Interval of evaluations, in epochs; the last always runs.",
        problem=EPOCHS,
        decides="plateau",
    )
    log_every_updates: int = _run(
        50, "Interval of logged points, in updates; each evaluation logs one too.", problem=POSITIVE
    )
    deterministic: bool = _run(
        False,
        "Use bit-reproducible kernels, and time nothing.",
        commands=(*TRAINING, *READING),
    )
    stop_at_epoch: float | None = _run(
        None,
        "Epoch at which this call ends, with a checkpoint.",
        problem=EPOCHS,
        scope=Scope.CALL,
    )

    strategy: str = _devices(
        "auto",
        "tf.distribute strategy. auto: mirrored if there are several devices; multi_worker: "
        "several processes, which TF_CONFIG, Slurm or Kubernetes names; tpu: all cores of --tpu.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    virtual_devices: int | None = _devices(
        None,
        "Number of devices that one CPU is split into (unset: it is not split).",
        problem=POSITIVE,
    )
    tpu: str | None = _devices(
        None,
        "TPU: local, on a TPU VM; or a name, with --tpu_zone and --tpu_project.",
        problem=_tpu_name,
    )
    tpu_zone: str | None = _devices(
        None, "Google Cloud zone of --tpu, such as us-west4-a.", problem=_tpu_name
    )
    tpu_project: str | None = _devices(None, "Google Cloud project of --tpu.", problem=_tpu_name)
    worker_timeout: float = _devices(
        60.0, "Silence after which a worker counts as lost, in seconds.", problem=POSITIVE
    )

    checkpoint: str = _checkpoint(
        "newest",
        "Checkpoint of the run: newest, best, an update, or the path of a checkpoint.",
        problem=_path,
    )
    export_dir: str | None = _checkpoint(
        None,
        "Folder that `export` writes (unset: export in the run directory), and that `evaluate` "
        "evaluates instead of a run: its SavedModel, or its file if model.keras is named.",
        problem=_path,
    )

    format: str = _output(
        "table",
        "Form of what is printed.",
        choices=("table", "json"),
        commands=("plan", "evaluate", "sweep"),
    )
    plot: str | None = _output(None, "PNG file of the plan's picture.", problem=_path)

    plan_replicas: int | None = _cost(
        None,
        "Number of replicas, over all hosts (unset: --virtual_devices, or one per host).",
        problem=POSITIVE,
        formerly="replicas",
    )
    plan_hosts: int | None = _cost(
        None,
        "Number of hosts that share the replicas evenly (unset: 1).",
        problem=POSITIVE,
        formerly="hosts",
    )
    plan_examples_per_second: float | None = _cost(
        None,
        "Throughput of one replica, in examples per second (unset: that of the finished run in "
        "--model_dir).",
        problem=POSITIVE,
        formerly="examples_per_second",
    )
    plan_parameters: int | None = _cost(
        None,
        "Number of the model's parameters, moving statistics included, that hosts sum in an "
        "update (unset: that of the finished run in --model_dir).",
        problem=POSITIVE,
        formerly="parameters",
    )
    plan_link_bandwidth: float = _cost(
        10.0,
        "Bandwidth from one host to the next, in gigabits per second; "
        "scripts/benchmarks/benchmark_link.py measures it, and the latency.",
        problem=POSITIVE,
        formerly="link_bandwidth",
    )
    plan_link_latency: float = _cost(
        50.0,
        "Time of a step from host to host besides its bytes, in microseconds; TensorFlow's ring "
        "between CPUs takes about 400.",
        problem=at_least(0),
        formerly="link_latency",
    )

    sweep: str | None = _sweep(
        None,
        "Grid of flags: initial_batch_size=128,256;seed=0,1 has four points; "
        "initial_batch_size/ghost_batch_size=2/2,128/32 varies two flags together; a value with "
        "commas is in braces, as in anneal_epochs={30%,60%},{50%,75%}. A flagfile may be a value; "
        "the sweep's own command line or flagfile overrides it.",
    )
    sweep_shard: str | None = _sweep(
        None,
        "Points that this process trains: 1/4 is the first and every fourth from there, up to 4/4 "
        "(unset: all).",
        formerly="sweep_part",
    )
    sweep_parallel: int = _sweep(
        1,
        "Number of points that are trained at once; they share the cores evenly.",
        problem=POSITIVE,
    )
    sweep_retry: bool = _sweep(False, "Train points again that have failed.")

    runs: tuple[str, ...] = _report(
        (),
        "Run directory, or folder of run directories; may be given several times, and without "
        "--runs= too.",
        repeated=True,
    )
    output: str = _report("report.html", "Page that is written: a .html file.", problem=_page)
    pictures: bool = _report(
        False, "Also write the figures as PNG files, into a folder beside the page."
    )


# Every flag, by name, in the order of the fields of Config.
FLAGS: Mapping[str, Flag] = flags_of(Config)
