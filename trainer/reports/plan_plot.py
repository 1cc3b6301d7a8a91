"""A plan as a picture: batch size, learning rate and noise scale over the epochs."""

from collections.abc import Sequence
from typing import Any

from trainer.errors import UserError
from trainer.schedule.plan import Phase


def draw(phases: Sequence[Phase], epochs: float, path: str) -> None:
    """Draws `phases` of a run of `epochs` to the image file `path`.

    Raises:
      UserError: where the file cannot be written.
    """
    # Takes 0.5 s to import, which a plan without a plot does not pay.
    from matplotlib.figure import Figure

    panels: dict[str, list[float]] = {
        "batch size (examples)": [phase.batch_size for phase in phases],
        "learning rate": [phase.learning_rate for phase in phases],
        "noise scale g": [phase.noise_scale for phase in phases],
    }
    starts = [phase.start_epoch for phase in phases]
    figure = Figure(figsize=(7, 7), layout="constrained")
    rows: Any = figure.subplots(len(panels), 1, sharex=True)
    for axes, (label, values) in zip(rows, panels.items(), strict=True):
        axes.step([*starts, epochs], [*values, values[-1]], where="post", color="#0072b2")
        axes.set(ylabel=label, yscale="log", xlim=(0, epochs))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}" if max(values) < 10 * min(values) else "")
        axes.grid(alpha=0.3, which="both")
    axes.set_xlabel("epochs")
    total = sum(phase.updates for phase in phases)
    figure.suptitle(f"{total:,} updates in {epochs:g} epochs")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise UserError(f"--plot={path} cannot be written: {error}") from error
