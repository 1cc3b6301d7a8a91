"""train: starts a run in its directory, or resumes the run that is there."""

import contextlib
import dataclasses
import errno
import pathlib
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from trainer.buckets.url import parse
from trainer.config.flags import Config
from trainer.distributed import shared_secret, tpu
from trainer.distributed.worker import Worker, from_environment
from trainer.errors import ExitStatus, NonFiniteLossError, NotSavedError, UserError
from trainer.nn.models import python_name
from trainer.run_dir import bucket_run, directory, wanted_workers
from trainer.run_dir import result as results
from trainer.run_dir.bucket_connection import local_folder
from trainer.schedule import averaging, trajectory
from trainer.system import output, process_limits, python_objects, stop_signals
from trainer.system.atomic_file import write_atomic
from trainer.system.output import log
from trainer.system.regular_file import NotRegularError, ReadError
from trainer.training.stop_reason import StopReason

# How a run ended: result.json's content, an early stop, a loss that is not finite, or None in
# workers other than the chief.
End = dict[str, Any] | StopReason | NonFiniteLossError | None

# What to do if a file of the run cannot be written, by errno.
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Free disk space"),
    errno.EFBIG: "Raise the limit, ulimit -f",
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Make it writable"),
}
_STATUSES = {
    StopReason.SIGNAL: ExitStatus.STOPPED,
    StopReason.EPOCH: ExitStatus.DONE,
    StopReason.WORKERS: ExitStatus.OTHER_WORKERS,
}


@dataclasses.dataclass(frozen=True)
class Stops:
    """Ways by which a run is asked to stop, with a checkpoint.

    Attributes:
      watched: returns a context manager; it yields a function that returns True after a signal.
      failed: returns whether code of the caller has failed.
    """

    watched: stop_signals.Watched = stop_signals.watched
    failed: Callable[[], bool] = lambda: False


_BY_SIGNALS = Stops()


def run(config: Config, report: Callable[[pathlib.Path], None] | None = None) -> int:
    """Trains the run of `config`; returns the exit status.

    If the run has ended or diverged, `report` is called with the path of the run directory. At that
    time, this process still holds the lock of the directory.

    Raises:
      UserError: before any training, if the flags, data, model or directory cannot be used.
      LostWorkerError: if another worker, or the TPU, is lost.
      NotSavedError: if a file of the run cannot be written.
    """
    end = train(config, report=report)
    if isinstance(end, NonFiniteLossError):
        if config.anneal != "range_test":
            output.say(f"crescendo train: {end}", to=sys.stderr)
        return end.status
    return _STATUSES[end] if isinstance(end, StopReason) else ExitStatus.DONE


def train(
    config: Config,
    stops: Stops = _BY_SIGNALS,
    report: Callable[[pathlib.Path], None] | None = None,
) -> End:
    """Trains the run of `config`, and returns how it ended.

    Args:
      config: flags of the run.
      stops: ways by which the run is asked to stop.
      report: called with the path of the run directory if the run has ended or diverged.

    Returns:
      The content of result.json if the run has ended, also if it had ended before this call; the
      reason why it stopped early; or the error if the loss is not finite. None in workers other
      than the chief.

    Raises:
      UserError, LostWorkerError, NotSavedError: as `run`.
    """
    if config.model_dir is None:
        raise UserError("--model_dir is missing: name the run's directory, as in runs/first.")
    url = parse(config.model_dir)
    path = local_folder(url, config.cache_dir) if url else pathlib.Path(config.model_dir)
    trajectory.unfreeze_position(config, examples=1)  # The check does not need `examples`.
    averaging.evaluated_with(config)  # Refuses to evaluate an average that the run does not have.
    if config.strategy == "tpu":
        tpu.check_packages()
    worker = None
    if config.strategy == "multi_worker":
        worker = from_environment(config.worker_timeout)
        secret = shared_secret.find(worker, None if url else path)
        worker = dataclasses.replace(worker, secret=secret)
        if not worker.chief:
            return _train(config, path, worker, stops)
    if url is None:
        return _train_in(path, config, worker, stops, report)
    seconds = config.worker_timeout
    with bucket_run.owned(url, config.cache_dir, seconds, stops.watched) as run:
        stops = dataclasses.replace(stops, watched=run.watched)
        return _train_in(run.path, config, worker, stops, report, run.lost)


def _train_in(
    path: pathlib.Path,
    config: Config,
    worker: Worker | None,
    stops: Stops,
    report: Callable[[pathlib.Path], None] | None,
    lost: Callable[[], str] = lambda: "",
) -> End:
    """Locks the local run directory `path`, and trains its run unless it is finished.

    If `lost` returns a text, another process has taken the run over, and training stops.
    """
    with directory.lock_run_dir(path, directory.flagfile_in(path, config)):
        ended = results.ended(path)
        end: End = ended
        if ended is not None:
            if python_objects.given().examples:
                from trainer.training import setup  # Imports TensorFlow.

                setup.check_finished(config, path)
            ranges = config.anneal == "range_test"  # The best top-1 of a range test is not useful.
            best = f"; {_best(ended)}" if ended.get("best") and not ranges else ""
            last = f"{_last(ended)} in {ended['updates']} updates"
            log(f"{config.model_dir} is finished: {last}{best}")
            if config.profile_updates:
                log("--profile_updates records nothing, because no update is left to train")
        try:
            # Other workers wait for the chief, even if the run is finished.
            if ended is None or worker:
                end = _train(config, path, worker, stops, lost) or ended
            if report and (isinstance(end, NonFiniteLossError) or results.ended(path)):
                report(path)
            return end
        except (NotRegularError, ReadError):
            raise
        except OSError as error:
            if error.filename is None or path not in pathlib.Path(error.filename).parents:
                raise
            remedy = _REMEDIES.get(error.errno or 0, "Check the disk and the folder")
            raise NotSavedError(
                f"{error.filename} cannot be written: {error.strerror}.\n"
                f"{remedy}, and give the same command again."
            ) from error


def _train(
    config: Config,
    path: pathlib.Path,
    worker: Worker | None,
    stops: Stops,
    lost: Callable[[], str] = lambda: "",
) -> End:
    """Trains the run in `path`; returns how it ended, as `train` does."""
    process_limits.check()
    chief = worker is None or worker.chief
    with stops.watched() as stopped, output.log_as(chief=chief):

        def should_stop() -> bool:
            return stopped() or stops.failed() or bool(lost())

        log("loading TensorFlow")
        # Importing TensorFlow takes four seconds, so the checks above come first.
        from trainer.training import run

        try:
            # The model of a range test is not used, so its confusion matrix is not shown.
            shown = None if config.anneal == "range_test" else _show_confusion(path, config)
            with _quiet_threads():
                end = run.train(config, path, should_stop, worker, shown)
        except NonFiniteLossError as error:
            if config.anneal == "range_test":  # A range test usually ends in this way.
                log(f"{str(error).partition(chr(10))[0].rstrip('.')}: the test ends here")
            if chief:
                write_atomic(path / directory.DIVERGED, f"{error}\n")
            return error
        if end is StopReason.WORKERS and should_stop():
            end = StopReason.SIGNAL  # The signal came after the decision.
        named = config.model_dir or str(path)  # Of a run in a bucket, its URL.
        if end is StopReason.SIGNAL:
            log(f"stopped, with a checkpoint; the same command resumes the run in {named}")
        elif end is StopReason.EPOCH:
            log(f"stopped at --stop_at_epoch={config.stop_at_epoch:g}, with a checkpoint")
        elif end is StopReason.WORKERS:
            log(f"stopped, with a checkpoint; see {path / wanted_workers.FILE}")
        elif isinstance(end, dict):
            found = f"{_last(end)} in {end['updates']} updates"
            log(f"{found}; see {path}/result.json")
            if config.anneal != "range_test":
                command = f"python -m trainer export --model_dir={shlex.quote(named)}"
                how = f"{command} --checkpoint=best writes its model"
                if config.model == python_name.NAME:  # The command cannot build this model.
                    how = f"trainer.load({named!r}, checkpoint='best', model=...) loads its model"
                log(f"{_best(end)}; {how}")
    return end


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Hides the error of TensorBoard's thread in the block, because the next write reports it."""
    from trainer.run_dir.metrics_writer import UNWRITABLE

    before = threading.excepthook

    def quiet(ended: threading.ExceptHookArgs) -> None:
        if not isinstance(ended.exc_value, UNWRITABLE):
            before(ended)

    threading.excepthook = quiet
    try:
        yield
    finally:
        threading.excepthook = before


def _show_confusion(
    path: pathlib.Path, config: Config
) -> Callable[[int, Sequence[str], Any], None]:
    """Returns a function that shows the confusion matrix of the run in `path` in TensorBoard."""
    split = "eval_ema" if averaging.evaluated_with(config) == averaging.EMA else "eval"

    def show(update: int, names: Sequence[str], cells: Any) -> None:
        try:
            # Importing matplotlib takes half a second, so it is imported after the training.
            from trainer.reports import class_plots
            from trainer.reports.plots import png
            from trainer.run_dir.metrics_writer import add_image

            picture = class_plots.confusion(names, cells.tolist())
            content = png(picture) if picture else None
        except Exception as error:  # The run must not fail because of a figure.
            log(f"TensorBoard lacks the confusion matrix: {error!r}")
            return
        if content is None:
            most = class_plots.MOST_CLASSES
            log(
                f"TensorBoard lacks the confusion matrix, because more than {most:,} classes occur "
                "in the matrix: `evaluate --per_class` measures it."
            )
            return
        add_image(path / "tensorboard" / split, "confusion_matrix", update, content)

    return show


def _last(result: Mapping[str, Any]) -> str:
    """Returns a text about the last evaluation of a finished run."""
    text = f"top1 {result['top1']:.4f}"
    counts = result.get("evaluated_with")
    other = "plain" if counts == "ema" else "ema"
    return f"{text} ({counts}; {other} {result[other]['top1']:.4f})" if counts else text


def _best(result: Mapping[str, Any]) -> str:
    """Returns a text about the best evaluation of a finished run."""
    best = result["best"]
    at_end = best["update"] == result["updates"]
    where = "the end of the run" if at_end else f"update {best['update']}"
    return f"the best evaluation has top1 {best['top1']:.4f}, at {where}"
