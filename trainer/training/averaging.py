"""Averages a model's parameters and moving statistics on the devices, and evaluates the average.

trainer/schedule/averaging.py defines the average and its weights.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from trainer.nn.moving_statistics import trained_norms
from trainer.schedule import averaging
from trainer.schedule.averaging import EMA, PLAIN
from trainer.training.evaluation import Evaluation, Evaluations, Evaluator


class ModelAverage:
    """Average of all weights of a model over its updates.

    All weights are averaged with the same weighting of positions, so the averaged model is a
    weighted mean of the run's models. A frozen weight is equal to its average. If its layer trains
    later, the average goes on from the frozen value, as if the weight had always been trained.

    Attributes:
      variables: average of each of the model's weights, in the model's order.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        *,
        decay: float,
        base_batch_size: int,
    ) -> None:
        """Creates the averages of `model`, which was built on `strategy`, as copies of its weights.

        Each replica keeps a copy of the averages, and updates it from its own copy of the weights.
        """
        self._strategy, self._model = strategy, model
        self._decay, self._base_batch_size = decay, base_batch_size
        with strategy.scope():
            self.variables = [
                tf.Variable(tf.identity(weight.value), trainable=False) for weight in model.weights
            ]

    def update_weights(self, batch_size: int, ends: Sequence[int]) -> list[float]:
        """Returns the weights of updates of `batch_size` examples that end at positions `ends`."""
        return averaging.update_weights(self._decay, self._base_batch_size, batch_size, ends)

    def moving(self) -> list[tuple[Any, Any]]:
        """Returns the pairs (weight, average) whose average an update moves.

        They are those of the parameters and the moving statistics that train now.
        """
        norms = trained_norms(self._model).values()
        moving = [s for norm in norms for s in (norm.moving_mean, norm.moving_variance)]
        changed = {id(variable) for variable in (*self._model.trainable_variables, *moving)}
        pairs = zip(self._model.weights, self.variables, strict=True)
        return [(weight.value, average) for weight, average in pairs if id(weight) in changed]

    def values(self, updated: Mapping[int, tf.Tensor], weight: tf.Tensor) -> list[tf.Tensor]:
        """Returns the values of the averages of `moving` after an update.

        Args:
          updated: the new values of the variables that the update changes, by their id.
          weight: weight of the update in the averages, float32 [].
        """
        values = []
        for variable, average in self.moving():
            new = updated.get(id(variable))
            before = average.read_value()
            values.append(before + weight * ((variable if new is None else new) - before))
        return values

    @contextlib.contextmanager
    def in_model(self) -> Iterator[None]:
        """Exchanges the model's weights for their averages while the context lasts.

        The exchange copies nothing, and is exact.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        def exchange(average: Any, value: Any) -> None:
            before = value.read_value()
            value.assign(average)
            average.assign(before)

        for weight, average in zip(self._model.weights, self.variables, strict=True):
            self._strategy.extended.update(average, exchange, args=(weight.value,), group=False)


def evaluate(
    evaluator: Evaluator,
    average: ModelAverage | None,
    counts: str,
    should_stop: Callable[[], bool],
) -> Evaluations | None:
    """Evaluates the model, and its average if there is one; returns None if it was told to stop.

    The parameters `counts` are evaluated last, so the evaluator then has their predictions.

    Args:
      evaluator: evaluates the model.
      average: the model's average; None if the run has none.
      counts: PLAIN or EMA, the parameters that the run's results are of.
      should_stop: returns whether the evaluation is to stop; called about every second.

    Raises:
      UserError: as `Evaluator.evaluate` does.
    """
    found: dict[str, Evaluation] = {}
    for name in sorted((PLAIN, EMA) if average else (PLAIN,), key=lambda name: name == counts):
        averaged = average.in_model() if average and name == EMA else contextlib.nullcontext()
        with averaged:
            evaluation = evaluator.evaluate(should_stop)
        if evaluation is None:
            return None
        found[name] = evaluation
    return Evaluations(found[PLAIN], found.get(EMA), counts)
