"""Outputs of a run while it trains: checkpoints, logged points and the progress bar."""

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
    """Everything that a run writes while it trains; workers other than the chief write nothing."""

    checkpoints: Checkpoints
    metrics: MetricsWriter
    progress: Progress

    def save(self, state: State) -> None:
        """Starts to write a checkpoint, unless a logged point cannot be written to the disk."""
        if self.metrics.flush():
            best = state.best["update"] if state.best else None
            self.checkpoints.save(state.update, dataclasses.asdict(state), best)

    def check_saved(self, state: State) -> None:
        """Waits for the checkpoint that is being written.

        Raises:
          NotSavedError: if the newest checkpoint is not that of `state`.
        """
        newest = self.checkpoints.wait()
        if newest != state.update:
            exists = "no checkpoint exists" if newest is None else f"the newest is of {newest}"
            raise NotSavedError(
                f"update {state.update} is not saved; {exists}.\n"
                "Make room, and give the same command again: it "
                f"{'starts again' if newest is None else 'resumes from there'}."
            )

    def close(self) -> None:
        """Waits for the checkpoint that is being written, and closes the log and the bar."""
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
    """Opens the outputs of the run in `path`; the chief also writes the flags and training data.

    Args:
      config: flags of the run.
      path: run directory.
      checkpoints: checkpoints of the run.
      state: state of the run; logged points after its update are dropped.
      data: properties of the training data, which the run keeps.
      end: last position of the run, in examples.
      chief: whether this process writes the run directory.
    """
    metrics: MetricsWriter = NoMetricsWriter()
    if chief:
        directory.keep_flags(path, flagfile.to_flagfile(config))
        training_data.keep(path, data)
        metrics = MetricsWriter(path, update=state.update)
    return Outputs(checkpoints, metrics, Progress(state.position, end, shown=chief))
