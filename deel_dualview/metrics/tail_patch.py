"""TailPatch: what one further training step on the proponents does to a prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from deel_dualview._checks import check_count, check_k, describe, require
from deel_dualview.metrics.base import MeanMetric, checked_positions, row_blocks, shape_of, to_reals
from deel_dualview.search import block_top_k

Step = Callable[[np.ndarray], Any]
"""From the position of a training example, shape (1,), to the log-probabilities (m,) of all test examples by the model
after one training step on it, each from the same weights."""


class TailPatch(MeanMetric):
    """Mean change of a prediction's log-probability by one further training step on one of its k strongest proponents.

    In nats; positive where proponents teach what is predicted. Each step starts from the weights that are explained.
    It measures what the model would learn from the proponents now, not what it has learned from them. Its size depends
    on the learning rate: compare methods under one, with random numbers (method `"random"`) beside them.

    Args:
        step: makes one training step on a training example, from the weights of the model, and returns the
            log-probabilities of all test examples; test examples in the order in which they are given here. It is
            called once for each training example that is a proponent of any of them.
        k: proponents of each test example.
        confidence_level: of the bootstrap interval.
        num_resamples: of the bootstrap; 0 leaves the interval out.
        seed: of the bootstrap.

    Example:
        ```python
        kept = [variable.numpy() for variable in model.optimizer.variables]  # its moments are part of a step


        def step(position):
            model.set_weights(weights)
            for variable, value in zip(model.optimizer.variables, kept, strict=True):
                variable.assign(value)
            model.train_on_batch(x[position], y[position])
            return np.log(model.predict(test_x, verbose=0)[np.arange(len(test_x)), predicted])


        metric = TailPatch(step, k=5)
        metric.update_state(values, log_probabilities)
        metric.result()
        ```

    Source: Chang et al. (2024), Scalable influence and fact tracing for large language model pretraining.
    """

    def __init__(
        self,
        step: Step,
        k: int = 5,
        *,
        confidence_level: float = 0.95,
        num_resamples: int = 1000,
        seed: int = 0,
    ):
        super().__init__(confidence_level=confidence_level, num_resamples=num_resamples, seed=seed)
        if not callable(step):
            raise TypeError(
                describe("`step` must be a function of the position of a training example.", {"step": step})
            )
        self.step, self.k = step, check_count("k", k)

    def reset_state(self) -> None:
        """Forget all examples, and what steps have done."""
        super().reset_state()
        self._after: dict[int, np.ndarray] = {}

    def update_state(self, influence_values: Any, log_probabilities: Any) -> None:
        """Make the steps for a batch of test examples.

        Args:
            influence_values: shape (m, n).
            log_probabilities: of what is predicted, by the model without any step, shape (m,).

        Raises:
            ValueError: shapes do not fit, k is larger than n, values are not finite, or `step` returns something else
                than one number a test example.
        """
        num_test, num_train = shape_of(influence_values)
        check_k(self.k, num_train)
        before = self._checked(log_probabilities, num_test)
        for rows, block in row_blocks(influence_values):
            _, first = block_top_k(block, np.arange(num_train), self.k)
            self._score(first, before[rows])

    def update_top_k(self, training_indices: Any, log_probabilities: Any, num_train: int) -> None:
        """Make the steps for a batch of test examples, known by their first proponents alone.

        Args:
            training_indices: positions of the first proponents, the first k of them count, shape (m, at least k).
            log_probabilities: of what is predicted, by the model without any step, shape (m,).
            num_train: number of training examples.

        Raises:
            ValueError: shapes do not fit, or a position is not in the training set.
        """
        first = checked_positions(training_indices, self.k, check_count("num_train", num_train))
        self._score(first, self._checked(log_probabilities, len(first)))

    def _score(self, first: np.ndarray, before: np.ndarray) -> None:
        start = len(self.scores)
        for row, (proponents, own) in enumerate(zip(first, before, strict=True), start=start):
            self._append(np.array([np.mean([self._at(int(one), row) - own for one in proponents])]))

    def _at(self, position: int, row: int) -> float:
        if position not in self._after:
            found = to_reals("Log-probabilities that `step` returns", self.step(np.array([position])))
            require(found.ndim == 1, "`step` must return one number a test example.", {"shape": found.shape})
            self._after[position] = found
        after = self._after[position]
        require(
            row < len(after) and bool(np.isfinite(after[row])),
            "`step` must return one finite number a test example.",
            {"shape": after.shape, "test example": row},
        )
        return float(after[row])

    def _checked(self, log_probabilities: Any, num_test: int) -> np.ndarray:
        before = to_reals("Log-probabilities", log_probabilities)
        require(
            before.shape == (num_test,) and bool(np.isfinite(before).all()),
            f"`log_probabilities` must be one finite number a test example, shape ({num_test},).",
            {"shape": before.shape},
        )
        return before
