"""Decides when a run with --workers leaves in order to go on with another number of workers.

The chief decides before the first update of each batch size, by the cost model of
schedule/worker_counts.py for the rest of the run. If a controller changes the schedule, the next
decision is made for the changed schedule. The cost model needs the speed of a replica. If
--plan_examples_per_second is not set, the chief measures it while the run trains. So it decides for
the first batch size only after a few stretches of updates.

A launcher may start another number of workers than the run asked for. So in the first update after
a request, the run does not ask again: it goes on with the workers that came, if they can share the
batch.
"""

import collections
import dataclasses
import statistics

from trainer.config import number_range
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.run_dir import wanted_workers
from trainer.run_dir.wanted_workers import Request
from trainer.schedule import cost, plan, worker_counts
from trainer.schedule.layout import lay_out
from trainer.schedule.stretch import Stretch
from trainer.system.output import log
from trainer.training import setup
from trainer.training.run_setup import Run

_FEWEST, _MOST = 3, 100  # Numbers of stretches whose median speed is the speed of the run.


class WorkerChanges:
    """Decides on the number of workers; only the chief of a run with --workers decides."""

    def __init__(self, config: Config, run: Run) -> None:
        """Prepares the decisions of `run`."""
        self._config, self._run = config, run
        self._decides = config.workers is not None and run.group.chief
        self._count = run.group.count
        self._unit = run.trajectory.micro_batch_size or config.ghost_batch_size
        self._batch_size = 0  # Batch size of the last call of `wanted`.
        self._open = False  # Whether the decision for this batch size is still to be made.
        rate, step = config.plan_examples_per_second, run.phases.step
        values = setup.values(step.model)
        self._worker = cost.Machines(
            replicas=step.strategy.num_replicas_in_sync // self._count,
            hosts=1,
            compute=cost.Compute(1 / rate if rate else 0.0),
            parameters=sum(variable.shape.num_elements() for variable in values),
            bandwidth=config.plan_link_bandwidth,
            latency=config.plan_link_latency,
            image_size=run.trajectory.image_size(run.trajectory.end),
        )
        # Side of the images in pixels, and seconds of a replica for an example in each stretch.
        self._measured: tuple[int | None, collections.deque[float]] | None = None

    def wanted(self) -> int:
        """Returns the number of workers with which the run should go on; 0: with the present ones.

        Raises:
          UserError: if the present workers cannot share the batch, and the run has just asked for
            others.
        """
        if not self._decides:
            return 0
        batch_size = self._run.trajectory.at(self._run.state.position).batch_size
        fits = self._fits(batch_size, self._count)
        if batch_size != self._batch_size:
            starts = not self._batch_size
            self._batch_size, self._open = batch_size, True
            if starts and (asked := self._request()):
                self._open = False
                return 0 if self._goes_on(asked, fits) else self._nearest()
        known = self._worker.compute.example > 0
        if not self._open or (fits and not known):
            return 0
        self._open = False
        found = self._best() if known else self._nearest()
        return 0 if found == self._count else found

    def ask(self, workers: int) -> None:
        """Writes workers.json, for the launcher; the checkpoint must have been written before."""
        if not self._run.group.chief:
            return
        update = self._run.state.update
        wanted_workers.write(self._run.path, Request(workers, self._batch_size, update))
        why = "it is worth"
        if not self._fits(self._batch_size, self._count):
            why = f"{_workers(self._count)} cannot share it, so the run asks for"
        log(
            f"from update {update + 1} on, the batch is {self._batch_size}, and {why} "
            f"{_workers(workers)}"
        )

    def trained(self, stretch: Stretch, seconds: float) -> None:
        """Measures the speed of a replica; `stretch` took `seconds`."""
        if not self._decides or self._config.plan_examples_per_second:
            return
        if self._measured is None or self._measured[0] != stretch.image_size:
            # The first stretch may be slower than the next ones.
            self._measured = stretch.image_size, collections.deque(maxlen=_MOST)
            return
        on = worker_counts.machines(self._worker, self._count)
        update = seconds / len(stretch.settings)
        # Above 0, even if the link is faster than the flags say.
        computed = max(update - on.communication, update / 10)
        size, found = self._measured
        found.append(computed * on.replicas / stretch.batch_size)
        if len(found) >= _FEWEST:
            compute = cost.Compute(statistics.median(found))
            self._worker = dataclasses.replace(self._worker, compute=compute, image_size=size)

    def _best(self) -> int:
        """Returns the number of workers that the cost model chooses for the next update."""
        state, unit = self._run.state, self._unit
        ramps = plan.ramps(
            self._run.trajectory,
            lambda size, _: lay_out(size, self._worker.replicas, unit, unit),
            plan.Begin(state.position, state.update),
        )
        choice = worker_counts.choose(
            [ramp.first for ramp in ramps],
            self._worker,
            self._numbers(),
            unit=unit,
            min_efficiency=self._config.min_efficiency,
            change_seconds=self._config.plan_change_seconds,
            current=self._count,
        )
        return choice.workers[0]

    def _numbers(self) -> range:
        assert self._config.workers
        return number_range.parse(self._config.workers).numbers()

    def _fits(self, batch_size: int, workers: int) -> bool:
        return worker_counts.can_share(batch_size, workers, self._worker.replicas, self._unit)

    def _nearest(self) -> int:
        """Returns the largest number up to the present one that fits, or else the smallest one."""
        fit = [w for w in self._numbers() if self._fits(self._batch_size, w)]
        return max((w for w in fit if w <= self._count), default=fit[0])

    def _request(self) -> Request | None:
        """Returns the request after which these workers have been started; None if there is none.

        A request that was written at another update, or before --workers had another range, is old.
        """
        asked, now = wanted_workers.read(self._run.path), (self._batch_size, self._run.state.update)
        if asked and (asked.batch_size, asked.update) == now and asked.workers in self._numbers():
            return asked
        return None

    def _goes_on(self, asked: Request, fits: bool) -> bool:
        """Returns whether the workers that came after the request `asked` go on."""
        if fits and asked.workers != self._count:
            log(
                f"the run asked for {_workers(asked.workers)} for the batch of {asked.batch_size}, "
                f"and {_workers(self._count)} came: it goes on with {self._count}"
            )
        if not fits and self._nearest() == asked.workers:
            raise UserError(
                f"{_workers(self._count)} cannot share the batch of {asked.batch_size}, for which "
                f"the run has asked for {asked.workers}.\n"
                f"Start {_workers(asked.workers)}, or use another --workers."
            )
        return fits


def _workers(count: int) -> str:
    return "one worker" if count == 1 else f"{count} workers"
