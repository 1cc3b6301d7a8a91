"""Averages a model's parameters and moving statistics on the devices, and evaluates the average.

The average is an exponential moving average (EMA), which trainer/schedule/averaging.py defines. A
position is the number of training examples that the run has consumed.
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

    An update has the same factor in the averages of all weights. So the averaged model is a
    weighted mean of the models after the updates. A frozen weight is equal to its average. If the
    weight trains later, its average changes as if the weight had trained since position 0.

    Attributes:
      variables: average of each of the model's weights, in the order of `model.weights`.
      start: position at which the average begins; not 0 if a fork has added the average.
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
        self.start = 0
        self._decay, self._base_batch_size = decay, base_batch_size
        with strategy.scope():
            self.variables = [
                tf.Variable(tf.identity(weight.value), trainable=False) for weight in model.weights
            ]

    def update_weights(self, batch_size: int, ends: Sequence[int]) -> list[float]:
        """Returns each update's weight in the average; `ends`: positions after the updates."""
        since = [end - self.start for end in ends]
        return averaging.update_weights(self._decay, self._base_batch_size, batch_size, since)

    def moving(self) -> list[tuple[Any, Any]]:
        """Returns the pairs (weight, average) in which an update changes the average.

        These weights are the parameters and the moving statistics that are not frozen now.
        """
        norms = trained_norms(self._model).values()
        moving = [s for norm in norms for s in (norm.moving_mean, norm.moving_variance)]
        changed = {id(variable) for variable in (*self._model.trainable_variables, *moving)}
        pairs = zip(self._model.weights, self.variables, strict=True)
        return [(weight.value, average) for weight, average in pairs if id(weight) in changed]

    def values(self, updated: Mapping[int, tf.Tensor], weight: tf.Tensor) -> list[tf.Tensor]:
        """Returns the value of each average in `moving` after an update, in the same order.

        Args:
          updated: new value of each variable that the update changes, by the variable's `id`.
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

        The variables exchange whole tensors, so no value is copied or rounded.
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
    """Evaluates the model, and its average if there is one; returns None if asked to stop.

    The evaluation that is the run's result comes last, because the evaluator keeps only the
    predictions of its last evaluation.

    Args:
      evaluator: evaluates the model.
      average: the model's average; None if the run does not average.
      counts: name of the evaluation that is the run's result: PLAIN for the evaluation of the
        parameters, EMA for the evaluation of their average.
      should_stop: returns whether the evaluation is to stop; called about every second.

    Raises:
      UserError: if `Evaluator.evaluate` raises it.
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
