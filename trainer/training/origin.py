"""Origin of a new run: initial parameters, pretrained weights or another run's checkpoint.

A run that resumes has no origin, because its own checkpoint has all parameters.
"""

import dataclasses
import pathlib

from trainer.config.flags import Config
from trainer.distributed.process_group import ProcessGroup
from trainer.nn.transfer import Transfer
from trainer.run_dir import checkpoint_names, lineage
from trainer.run_dir.lineage import Lineage
from trainer.run_dir.training_data import TrainingData
from trainer.schedule.trajectory import Trajectory
from trainer.system.atomic_file import write_atomic
from trainer.training import fork, pretrained
from trainer.training.outputs import Outputs
from trainer.training.state import State


@dataclasses.dataclass(frozen=True)
class Origin:
    """Origin of a new run: initial parameters if both attributes are None.

    Attributes:
      source: the pretrained weights of --init_from.
      parent: the checkpoint of --fork_from.
    """

    source: pretrained.Source | None = None
    parent: fork.Parent | None = None

    def preprocessed(self, data: TrainingData, model: str) -> TrainingData:
        """Returns `data` with the preprocessing that the parameters were trained with, if any.

        Raises:
          UserError: if the data or `model` do not permit this preprocessing.
        """
        if self.parent:
            data = fork.preprocessed(data, self.parent)
        return pretrained.preprocessed(data, self.source, model) if self.source else data


def find(config: Config, path: pathlib.Path, group: ProcessGroup) -> Origin | None:
    """Returns what the run in the directory `path` begins from.

    Returns None if the run resumes, and in processes other than the chief, which share its state.

    Raises:
      UserError: if the weights or the other run do not exist or cannot be used.
    """
    if not group.chief or checkpoint_names.found(path / "checkpoints"):
        return None
    return Origin(
        pretrained.find(config) if config.init_from else None,
        fork.find(config) if config.fork_from else None,
    )


def lineage_of(
    origin: Origin | None, config: Config, path: pathlib.Path, schedule: Trajectory
) -> Lineage | None:
    """Returns the record of the run's fork, or None if the run is not a fork.

    Args:
      origin: what `find` returned.
      config: flags of the run.
      path: run directory, which has the record if the run resumes.
      schedule: trajectory of the run.

    Raises:
      UserError: if the fork cannot begin, or the run directory has no readable record.
    """
    if origin and origin.parent:
        fork.check_order(origin.parent, config, schedule.examples)
        return fork.lineage_of(origin.parent, config, schedule)
    if config.fork_from is None:
        (path / lineage.FILE).unlink(missing_ok=True)  # A fork was killed as it began.
        return None
    return lineage.read_resumed(path)


def keep(
    origin: Origin, loaded: Transfer | None, path: pathlib.Path, outputs: Outputs, state: State
) -> None:
    """Writes what was loaded, and a first checkpoint, so that a restart needs no other run.

    Args:
      origin: what the run begins from.
      loaded: the loaded, new and unused weights, if the run begins from pretrained weights.
      path: run directory.
      outputs: writes the checkpoint.
      state: progress of the run.
    """
    if loaded:
        write_atomic(path / pretrained.FILE, loaded.table())
    if loaded or origin.parent:
        outputs.save(state)
