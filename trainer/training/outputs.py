"""Outputs of a training run: checkpoints, logged points and the progress bar."""

import dataclasses
import pathlib

from trainer.config import flagfile
from trainer.config.flags import Config
from trainer.errors import NotSavedError
from trainer.run_dir import directory, training_data
from trainer.run_dir.checkpoints import Checkpoints
from trainer.run_dir.metrics_writer import MetricsWriter, NoMetricsWriter
from trainer.run_dir.training_data import TrainingData
from trainer.training.progress import Progress
from trainer.training.state import State


@dataclasses.dataclass(frozen=True)
class Outputs:
    """Outputs of a run; in workers other than the chief (the first worker), they write nothing."""

    checkpoints: Checkpoints
    metrics: MetricsWriter
    progress: Progress

    def save(self, state: State) -> None:
        """Starts to write a checkpoint, but only if all logged points could be written."""
        if self.metrics.flush():
            best = state.best["update"] if state.best else None
            self.checkpoints.save(state.update, dataclasses.asdict(state), best)

    def check_saved(self, state: State) -> None:
        """Waits until the checkpoint is written.

        Raises:
          NotSavedError: if the newest checkpoint does not have the update number of `state`.
        """
        newest = self.checkpoints.wait()
        if newest != state.update:
            none = newest is None
            exists = (
                "no checkpoint exists" if none else f"the newest checkpoint is of update {newest}"
            )
            raise NotSavedError(
                f"update {state.update} is not saved; {exists}.\nFree disk space, and give the "
                f"same command again: it {'starts again' if none else 'resumes from there'}."
            )

    def close(self) -> None:
        """Waits until the checkpoint is written; then closes the log and the progress bar."""
        self.checkpoints.wait()
        self.progress.close()
        self.metrics.close()


def open_outputs(
    config: Config,
    path: pathlib.Path,
    checkpoints: Checkpoints,
    state: State,
    data: TrainingData,
    *,
    end: int,
    chief: bool,
) -> Outputs:
    """Opens the outputs of the run in `path`; the chief also writes flags.txt and `data`.

    In a resumed run, logged points that came after `state` are deleted. `end` is the number of
    examples that the run consumes until its end.
    """
    metrics: MetricsWriter = NoMetricsWriter()
    if chief:
        directory.keep_flags(path, flagfile.to_flagfile(config))
        training_data.keep(path, data)
        evaluated = state.evaluated_at == state.position
        metrics = MetricsWriter(path, update=state.update, evaluated=evaluated)
    return Outputs(checkpoints, metrics, Progress(state.position, end, shown=chief))
