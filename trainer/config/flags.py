"""Declares Config, which has all flags: its own flags, and the flags of its base classes."""

import dataclasses
import re
from collections.abc import Mapping

from trainer.config import local_path
from trainer.config.declaration import (
    DURATION,
    EPOCHS,
    MODEL,
    POSITIVE,
    SPEED,
    TRAINING,
    Flag,
    Group,
    Scope,
    at_least,
    flags_of,
    must_be,
)
from trainer.config.number_range import must_be_range
from trainer.config.run_flags import RunFlags

_run = Group("Run", Scope.FREE, TRAINING)
_devices = Group("Devices", Scope.MACHINE, MODEL)
_checkpoint = Group("Checkpoint", Scope.CALL, ("evaluate", "export", "predict"))
_output = Group("Output", Scope.CALL, ("plan",))
_cost = Group("Predicted time", Scope.CALL, ("plan",))
_elastic = Group("Predicted time", Scope.CALL, ("plan", "train"))
_sweep = Group("Sweep", Scope.CALL, ("sweep",))
_predict = Group("Predictions", Scope.CALL, ("predict",))
_report = Group("Report", Scope.CALL, ("report",))


def _is_name(value: str) -> bool:
    return re.fullmatch(r"[a-z]([-a-z0-9.:]*[a-z0-9])?", value) is not None


def _are_addresses(value: str) -> bool:
    """Returns whether `value` has the addresses of several hosts, each once."""
    found = [re.fullmatch(r"[-a-z0-9.]+:([0-9]{1,5})", each) for each in value.split(",")]
    ports = [int(each[1]) for each in found if each]
    distinct = len({*value.split(",")}) == len(found) > 1
    return len(ports) == len(found) and distinct and all(0 < port < 65536 for port in ports)


_tpu = must_be(
    "a name of small letters, digits and dashes, or the different addresses of several hosts",
    lambda value: _is_name(value) or _are_addresses(value),
)
_tpu_name = must_be("a name of small letters, digits and dashes", _is_name)


def _page(value: str) -> str:
    # The folder of the figures is beside the page, and has the page's name without .html. The two
    # names must differ, so the page's name must end with .html.
    return local_path.problem(value) or (
        "" if re.search(r"[^/]\.html$", value) else "must end with .html"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
    """Parsed command line: a field for each flag, in the unit that the help of the flag names.

    Attributes:
      given: text of each flag that was set, such as --name=value, by the name of the flag.
    """

    given: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    model_dir: str | None = _run(
        None,
        "Run directory; a run that is already there resumes. The directory is local or in a "
        "bucket, as in gs://bucket/runs/x or s3://bucket/runs/x.",
        problem=local_path.run_problem,
        scope=Scope.MACHINE,
        commands=(*MODEL, "fetch"),
    )
    local_dir: str | None = _run(
        None,
        "Folder of the local copy of the run or sweep.",
        problem=local_path.problem,
        scope=Scope.CALL,
        commands=("fetch",),
    )
    cache_dir: str | None = _run(
        None,
        "Local folder for files that are in buckets (unset: ~/.cache/crescendo).",
        problem=local_path.problem,
        scope=Scope.MACHINE,
        commands=(*MODEL, "report"),
    )
    micro_batch_size: int = _run(
        0,
        "Largest number of examples in one forward and backward pass of a replica. 0: the fastest "
        "number that fits in memory, by measurement. With --deterministic or --anneal=measured, it "
        "is not measured, but is 128, or the ghost batch size if that is larger; with "
        "--anneal=measured, it is at most half of the first batch.",
        problem=at_least(0),
        decides="measured",
    )
    checkpoint_minutes: float = _run(
        10.0,
        "Interval of checkpoints, in minutes; each evaluation also writes a checkpoint.",
        problem=POSITIVE,
    )
    keep_checkpoints: int = _run(3, "Number of newest checkpoints to keep.", problem=POSITIVE)
    eval_every_epochs: float = _run(
        1.0,
        "Interval of evaluations, in epochs; a run always ends with an evaluation.",
        problem=EPOCHS,
        decides="plateau",
    )
    log_every_updates: int = _run(
        50, "Interval of logged points, in updates; evaluations log points too.", problem=POSITIVE
    )
    deterministic: bool = _run(
        False,
        "Use bit-reproducible kernels, and make no choice that depends on measured time.",
        commands=MODEL,
    )
    xla: str = _run(
        "auto",
        "Whether XLA compiles the training step. With XLA, results differ by rounding, and random "
        "layers draw other masks. auto: only on GPUs, and not with --deterministic. CPUs are "
        "slower with XLA; TPUs always use XLA.",
        choices=("auto", "on", "off"),
        commands=("train", "range_test", "sweep"),
    )
    stop_at_epoch: float | None = _run(
        None,
        "Epoch at which this call ends, with a checkpoint (unset: the end of the run).",
        problem=EPOCHS,
        scope=Scope.CALL,
    )
    profile_updates: str | None = _run(
        None,
        "First and last update to profile for TensorBoard, such as 100:110; only the chief, the "
        "first worker, is profiled (unset: none).",
        problem=must_be_range("the first and the last update, such as 100:110"),
        scope=Scope.CALL,
        commands=("train",),
    )

    strategy: str = _devices(
        "auto",
        "Distribution strategy. auto: mirrored if there are several devices, else one_device; "
        "multi_worker: several processes, as TF_CONFIG, Slurm or Kubernetes lists them; tpu: all "
        "cores of --tpu.",
        choices=("auto", "one_device", "mirrored", "multi_worker", "tpu"),
    )
    virtual_devices: int | None = _devices(
        None, "Number of devices into which one CPU is split (unset: not split).", problem=POSITIVE
    )
    tpu: str | None = _devices(
        None,
        "TPU to use: local on a TPU VM, a name with --tpu_zone and --tpu_project, or the "
        "addresses of the hosts of a slice, such as 10.0.0.2:8470,10.0.0.3:8470.",
        problem=_tpu,
    )
    tpu_zone: str | None = _devices(None, "Zone of --tpu, such as us-west4-a.", problem=_tpu_name)
    tpu_project: str | None = _devices(None, "Google Cloud project of --tpu.", problem=_tpu_name)
    worker_timeout: float = _devices(
        60.0,
        "Time without a heartbeat after which a worker counts as lost, in seconds. If --model_dir "
        "is in a bucket, also the time after which another process may take over a killed run.",
        problem=POSITIVE,
    )

    checkpoint: str = _checkpoint(
        "newest",
        "Checkpoint to read: newest, best, an update's number, or a path.",
        problem=local_path.problem,
    )
    export_dir: str | None = _checkpoint(
        None,
        "Folder of an export. `export` writes it (unset: the folder export in the run directory). "
        "`evaluate` and `predict` read the SavedModel in this folder. To read model.keras instead, "
        "give the path of that file.",
        problem=local_path.problem,
    )

    per_class: bool = _checkpoint(
        False,
        "Also measure each class, and write evaluation.json and evaluation.csv into the directory "
        "of the run or the export.",
        commands=("evaluate",),
    )

    format: str = _output(
        "table",
        "Output format. With json, `predict` prints a line with one JSON object for each picture.",
        choices=("table", "json", "csv"),
        only={"csv": ("predict",)},
        commands=("plan", "evaluate", "predict", "sweep"),
    )
    plot: str | None = _output(
        None, "PNG file for a figure of the plan.", problem=local_path.problem
    )

    plan_replicas: int | None = _cost(
        None,
        "Number of replicas over all hosts (unset: --virtual_devices, or one per host).",
        problem=POSITIVE,
        formerly="replicas",
    )
    plan_hosts: int | None = _cost(
        None, "Number of hosts, of equal size (unset: 1).", problem=POSITIVE, formerly="hosts"
    )
    workers: str | None = _elastic(
        None,
        "Smallest and largest number of workers, such as 1:8 (unset: a run keeps its number). With "
        "it, `plan` prints how many each phase is worth, of --plan_replicas each; `train` stops at "
        "a batch that is worth another number, with status 77, and launchers start this number.",
        problem=must_be_range("the fewest and the most workers, such as 1:8", most=99_999),
    )
    min_efficiency: float = _elastic(
        0.8,
        "Least efficiency that --workers accepts, as a fraction: the time of an update on one "
        "worker, divided by the number of workers and by the time on all of them.",
        problem=must_be("from 0 to 1", lambda value: 0 <= value <= 1),
    )
    plan_change_seconds: float = _elastic(
        30.0,
        "Seconds of a change of the number of workers: a checkpoint, and a start to an update.",
        problem=DURATION,
    )
    plan_examples_per_second: float | None = _elastic(
        None,
        "Throughput of one replica, in examples per second (unset: the throughput of the run in "
        "--model_dir: `plan` reads it after the end, and `train` measures it).",
        problem=SPEED,
        formerly="examples_per_second",
    )
    plan_parameters: int | None = _cost(
        None,
        "Number of parameters and moving statistics that the hosts all-reduce in each update "
        "(unset: the number in the finished run in --model_dir).",
        problem=POSITIVE,
        formerly="parameters",
    )
    plan_link_bandwidth: float = _elastic(
        10.0,
        "Gigabits per second from host to host; scripts/benchmarks/benchmark_link.py measures it.",
        problem=SPEED,
        formerly="link_bandwidth",
    )
    plan_link_latency: float = _elastic(
        50.0,
        "Latency of one step of the ring all-reduce from host to host, in microseconds. With "
        "TensorFlow's ring between CPUs, it is about 400.",
        problem=DURATION,
        formerly="link_latency",
    )

    sweep: str | None = _sweep(
        None,
        "Grid of flags: initial_batch_size=128,256;seed=0,1 has four points. "
        "initial_batch_size/ghost_batch_size=2/2,128/32 varies two flags together. Braces enclose "
        "a value that has commas: anneal_epochs={30%,60%},{50%,75%}. Flagfiles may be swept too, "
        "as in flagfile=a.flags,b.flags; the sweep's other flags override the flags in them.",
    )
    sweep_shard: str | None = _sweep(
        None,
        "Share of the points that this process trains: 1/4 is points 1, 5, 9 and so on, and 4/4 is "
        "points 4, 8, 12 and so on (unset: all points).",
        formerly="sweep_part",
    )
    sweep_parallel: int = _sweep(
        1, "Number of points to train at once, which share the cores evenly.", problem=POSITIVE
    )
    sweep_retry: bool = _sweep(False, "Train failed points again.")

    images: tuple[str, ...] = _predict(
        (),
        "Picture, or folder of pictures. The flag may be given several times, and --images= may be "
        "left out.",
        repeated=True,
    )
    top_k: int | None = _predict(
        None,
        "Number of most probable classes to print for each picture (unset: 3, or all classes if "
        "there are fewer).",
        problem=POSITIVE,
    )

    runs: tuple[str, ...] = _report(
        (),
        "Run directory, or folder of run directories, local or in a bucket. The flag may be given "
        "several times, and --runs= may be left out.",
        repeated=True,
    )
    output: str = _report("report.html", "Path of the page, a .html file.", problem=_page)
    pictures: bool = _report(False, "Also write the figures as PNG files, beside the page.")


# All flags by name, in the order of Config's fields.
FLAGS: Mapping[str, Flag] = flags_of(Config)
