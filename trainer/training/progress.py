"""Progress bar of a run, shown only on a terminal; messages are printed above the bar."""

from tqdm import tqdm

from trainer.system import output


class Progress:
    """Progress bar over the examples of a run."""

    def __init__(self, position: int, end: int, *, shown: bool = True) -> None:
        """Shows the bar at `position` of `end` examples if `shown` and if stderr is a terminal."""
        self._bar = tqdm(
            total=end,
            initial=position,
            unit=" examples",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if shown else True,  # With None, tqdm shows the bar only on a terminal.
        )
        if not self._bar.disable:
            output.log_above_bar(tqdm.write)

    def update(self, position: int, **values: float) -> None:
        """Moves the bar to `position`, and shows `values` with their names after the bar."""
        self._bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
        self._bar.update(min(position, self._bar.total) - self._bar.n)

    def close(self) -> None:
        """Closes the bar, which stays on the terminal."""
        self._bar.close()
        output.log_above_bar(None)
