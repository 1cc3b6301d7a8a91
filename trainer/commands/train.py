"""train: starts a run in its directory, or goes on with the one that is there."""

import contextlib
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from trainer.cluster import limits, tpu
from trainer.cluster.workers import Worker, from_environment
from trainer.config import Config, UserError
from trainer.regular_file import NotRegularError, ReadError
from trainer.run_dir import directory
from trainer.run_dir import result as results

# A scheduler that sees it starts the run again: EX_TEMPFAIL of sysexits.h.
STOPPED = 75
NON_FINITE = 3


def run(config: Config, report: Callable[[pathlib.Path], None] | None = None) -> int:
    """Trains as `config` says; returns the exit status.

    `report` is called with the directory, while it is held, once the run has ended or diverged.

    Raises:
      UserError: for flags, data, a model or a directory that cannot be trained with, before any
        training.
      LostWorkerError: where another worker, or the TPU, is lost.
      NotSavedError: where the run ends or stops, and what it did last cannot be written.
    """
    if config.model_dir is None:
        raise UserError("--model_dir is missing: name the run's directory, as in runs/first.")
    path = pathlib.Path(config.model_dir)
    if config.strategy == "tpu":
        tpu.check_packages()
    worker = None
    if config.strategy == "multi_worker":
        worker = from_environment(config.worker_timeout)
        if not worker.chief:
            return _train(config, path, worker)
    with directory.claim(path, directory.flagfile_in(path, config)):
        ended, status = results.ended(path), 0
        if ended is not None:
            top1, updates = ended["top1"], ended["updates"]
            print(f"{path} is finished: top1 {top1:.4f} in {updates} updates.", flush=True)
        try:
            if ended is None or worker:  # Other workers wait to be told.
                status = _train(config, path, worker)
            if report and (status == NON_FINITE or results.ended(path)):
                report(path)
            return status
        except (NotRegularError, ReadError):
            raise
        except OSError as error:
            if error.filename is None or path not in pathlib.Path(error.filename).parents:
                raise
            raise directory.NotSavedError(
                f"{error.filename} cannot be written: {error.strerror}.\n"
                "Make room, and give the same command again."
            ) from error


def _train(config: Config, path: pathlib.Path, worker: Worker | None = None) -> int:
    """The exit status of what `assemble.train` does with the same."""
    limits.check()
    with _stop_signal() as stopped:
        # TensorFlow takes four seconds to import, for which a directory in use need not wait.
        from trainer import assemble, loop
        from trainer.run_dir.summaries import UNWRITABLE

        def quiet(ended: threading.ExceptHookArgs) -> None:
            # TensorBoard's thread keeps its error for who writes next, and that one reports it.
            if not isinstance(ended.exc_value, UNWRITABLE):
                threading.__excepthook__(ended)

        threading.excepthook = quiet
        chief = worker is None or worker.chief
        if chief:
            directory.forget_divergence(path)
        try:
            result = assemble.train(config, path, stopped, worker)
        except loop.NonFiniteLossError as error:
            print(f"crescendo train: {error}", file=sys.stderr)
            if chief:
                directory.write_whole(path / directory.DIVERGED, f"{error}\n")
            return NON_FINITE
    if result is loop.Early.SIGNAL:
        if chief:
            print(f"stopped, with a checkpoint; the same command goes on in {path}")
        return STOPPED
    if result is None or not chief:
        return 0
    if isinstance(result, loop.Early):
        print(f"stopped at --stop_at_epoch={config.stop_at_epoch:g}, with a checkpoint")
        return 0
    print(f"top1 {result['top1']:.4f} in {result['updates']} updates; see {path}/result.json")
    return 0


@contextlib.contextmanager
def _stop_signal() -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM or SIGINT has come, for who asks.

    Before somebody has asked, there is nothing to be saved, and a signal ends the process at once;
    so does a second one: what is on the disk is whole at every moment. A thread watches, since
    Python runs its handlers only where TensorFlow returns.
    """
    received = threading.Event()
    asked = threading.Event()

    def watch() -> None:
        while os.read(out, 1):
            if received.is_set() or not asked.is_set():
                os._exit(STOPPED)
            received.set()

    def stopped() -> bool:
        asked.set()
        return received.is_set()

    out, into = os.pipe()
    os.set_blocking(into, False)
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {each: signal.signal(each, lambda *_: None) for each in signals}
    signal.set_wakeup_fd(into)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield stopped
    finally:
        signal.set_wakeup_fd(-1)
        for each, handler in before.items():
            signal.signal(each, handler)
        os.close(into)
        watcher.join()
        os.close(out)
