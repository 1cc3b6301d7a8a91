"""Reads the state of the run that --fork_from names into the variables of its fork.

As in fork.py, the parent is that run, and the child is the fork.
"""

from trainer.config.flags import Config
from trainer.nn import moving_statistics
from trainer.run_dir import checkpoint_reader
from trainer.schedule.trajectory import Trajectory
from trainer.system.output import log
from trainer.training.fork import Parent, same_controller
from trainer.training.phases import Phases
from trainer.training.state import State


def restore(parent: Parent, config: Config, phases: Phases, child: Trajectory) -> State:
    """Reads the parent's variables into the child's, and returns the child's first state.

    Args:
      parent: checkpoint of the parent.
      config: flags of the child.
      phases: the child's training steps, which have the variables.
      child: trajectory of the child, after `lineage_of` has set its controller.

    Raises:
      UserError: if the variables do not fit the child's model.
    """
    if config.fork_position == 0:
        return _settled(parent, phases)
    phases.move_to(parent.position)
    variables = phases.variables()
    new_slots = _reason_for_new_slots(parent, config)
    if new_slots:
        variables = {name: group for name, group in variables.items() if name != "slots"}
        log(f"the optimizer's slots are new, because {new_slots}")
    had_average = parent.config.ema_decay is not None
    if "averages" in variables and not had_average:
        variables = {name: group for name, group in variables.items() if name != "averages"}
    checkpoint_reader.load(parent.path.parent, str(parent.path), variables)
    if phases.step.average and not had_average:
        _copy_weights(phases)
        log("the average of the parameters begins with their present values")
    progress = {**parent.progress, "control": child.control.state_dict()}
    progress["statistics_starts"] = _statistics_starts(parent, phases)
    if parent.progress.get("control") and not same_controller(parent, config):
        log(f"--anneal={config.anneal} does not take over the state of {parent.config.anneal}")
    if new_slots:
        progress["metric_noise"] = {}
    # The best evaluation is one of the parent's checkpoints, which the child does not have.
    return State(**progress | {"best": None, "resumes": 0, "window": {}, "training_data": {}})


def _statistics_starts(parent: Parent, phases: Phases) -> dict[str, int | None]:
    """Returns each batch norm's start (moving_statistics.Start); the weights must be loaded.

    A norm that the parent had frozen starts at the fork, or is None if its statistics were
    pretrained.
    """
    before = parent.progress.get("statistics_starts")
    if before is None:  # An old version wrote the checkpoint, and all its norms started at 0.
        return dict(phases.step.starts)
    own = moving_statistics.starts(moving_statistics.trained_norms(phases.step.model))
    now = {name: None if start is None else parent.position for name, start in own.items()}
    return {**now, **before}


def _settled(parent: Parent, phases: Phases) -> State:
    """Reads the parent's parameters and moving statistics, for a run that begins at position 0."""
    weights = {"weights": phases.variables()["weights"]}
    checkpoint_reader.load(parent.path.parent, str(parent.path), weights)
    _copy_weights(phases)
    norms = moving_statistics.trained_norms(phases.step.model)
    phases.step.starts = moving_statistics.starts(norms)
    return State(
        statistics_starts=phases.step.starts,
        model_configuration=parent.progress.get("model_configuration"),
        normalization_refreshed=parent.progress.get("normalization_refreshed", False),
    )


def _copy_weights(phases: Phases) -> None:
    """Makes the average of each weight, if there is one, equal to the weight."""
    if average := phases.step.average:
        for weight, averaged in zip(phases.variables()["weights"], average.variables, strict=True):
            averaged.assign(weight.numpy())


def _reason_for_new_slots(parent: Parent, config: Config) -> str:
    """Returns why the parent's optimizer slots do not fit the child; "" if they fit."""
    for name in ("optimizer", "freeze", "unfreeze_epochs"):
        old, new = getattr(parent.config, name), getattr(config, name)
        if old != new:
            return f"--{name} was {old or 'unset'} and is {new or 'unset'}"
    return ""
