"""What a user sees while a run goes on: a bar on a terminal, quiet lines elsewhere."""

import sys
from collections.abc import Callable

from tqdm import tqdm

from trainer.system.output import clean


def line(text: str) -> None:
    """Prints a line above the bar."""
    tqdm.write(clean(text), file=sys.stdout)
    sys.stdout.flush()


class Progress:
    """Examples done of `end`, from `position` on; `report` is given the lines that go with them."""

    def __init__(
        self, position: int, end: int, *, shown: bool = True, report: Callable[[str], None] = line
    ) -> None:
        # disable=None: only on a terminal.
        self._bar = tqdm(
            total=end,
            initial=position,
            unit=" examples",
            unit_scale=True,
            dynamic_ncols=True,
            disable=None if shown else True,
        )
        self.line = report

    def update(self, position: int, **values: float) -> None:
        """Moves the bar to `position` and shows `values` behind it."""
        self._bar.set_postfix({k: f"{v:.4g}" for k, v in values.items()}, refresh=False)
        self._bar.update(min(position, self._bar.total) - self._bar.n)

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()
