"""TracIn: gradient products added up over the checkpoints of a training run."""

import math
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deel_dualview._checks import describe, is_number, require
from deel_dualview.calculators.checkpoints import CheckpointGradients, Models, check_models
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.gradients import Preconditioner, Weights, preconditioner_of
from deel_dualview.linalg.blocks import Blocks, OuterProduct, scaled
from deel_dualview.linalg.projections import Projection
from deel_dualview.search.faiss_index import FaissIndex, check_index
from deel_dualview.stores import Store
from deel_dualview.typing import Function, Target


class TracIn(StoredInfluenceCalculator):
    """Sum over checkpoints of learning rate times the inner product of gradients.

    sum_t eta_t <grad L_t(x, c), grad L_t(x_i, y_i)>. Positive where training on the example lowered the loss
    of the evaluated one; one unit is one nat of loss for each visit of the example (alone in its batch, by
    plain gradient descent) at each checkpoint. Self-influence is sum_t eta_t |grad L_t(x_i, y_i)|^2. With one
    checkpoint it is the learning rate times `GradDot`.

    The explained class of an evaluated example is what the *last* checkpoint given says. Vectors of all
    checkpoints are kept, so memory grows with their number; learning rates are applied to queries, so the
    same stored vectors serve any.

    Args:
        models: checkpoints of one architecture in order of training, or one model; see `load_checkpoints`.
        train_set: the training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        learning_rates: one for all checkpoints, or one for each.
        weights: in which weights gradients are taken: `"last"`, `"all"` or names of layers.
        function: `"loss"` (as published), `"logit"` or `"margin"`.
        projection: a random projection of the gradients, for many weights; none by default.
        preconditioner: `"adam"` for inner products <g, D_t g_i>, D_t = diag(1 / (sqrt(v_hat) + epsilon)) of the Adam of
            each checkpoint, which `load_checkpoints` restores of a model that is compiled; none by default.
        target: which class of an evaluated example is explained.
        store: where vectors of the training examples are kept.
        index: for millions of training examples, see `FaissIndex`; every example is compared by default.

    Raises:
        TypeError: a checkpoint that is not a model, a learning rate that is not a number.
        ValueError: checkpoints of different architectures, another number of learning rates than checkpoints,
            a learning rate that is negative or not finite, a preconditioner of checkpoints without an Adam that has
            trained them, or gradients that are not finite (of which examples).

    Source: Pruthi et al. (2020), section 3.3 (TracInCP) and 3.4 (projections).
    """

    _takes_positions = False

    def __init__(
        self,
        models: Models,
        train_set: tf.data.Dataset,
        *,
        learning_rates: float | Sequence[float] = 1.0,
        weights: Weights = "last",
        function: Function = "loss",
        projection: Projection | None = None,
        preconditioner: Preconditioner | None = None,
        target: Target = "prediction",
        store: Store | None = None,
        index: FaissIndex | None = None,
    ) -> None:
        check_index(index)
        checkpoints = check_models(models)
        self.learning_rates = _check_learning_rates(learning_rates, len(checkpoints))
        self.gradients = CheckpointGradients(
            checkpoints, weights=weights, function=function, projection=projection
        )
        self._preconditioners = [preconditioner_of(own, preconditioner) for own in self.gradients.of_models]
        super().__init__(checkpoints[-1], train_set, target=target, store=store)
        self.gradients.prepare(train_set)
        self._rely_on(*self.gradients.records)
        self._stored()
        self._use_index(index)

    def _settings(self) -> dict[str, str]:
        return self.gradients.describe()

    @property
    def _keeps_features(self) -> bool:
        return False

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        batches = zip(self.gradients.represented(represented), self.gradients.of_models, strict=True)
        found = [batch.training_gradients(gradients) for batch, gradients in batches]
        return tuple(block for gradients in found for block in gradients)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        found = self.gradients.checked(represented, classes)
        return self._own_queries(tuple(block for gradients in found for block in gradients))

    def _own_queries(self, vectors: Blocks) -> Blocks:
        num_blocks = len(vectors) // len(self.learning_rates)
        found: list[tf.Tensor | OuterProduct] = []
        for index, (rate, own) in enumerate(zip(self.learning_rates, self._preconditioners, strict=True)):
            part = vectors[index * num_blocks : (index + 1) * num_blocks]
            found += scaled(part if own is None else own(part), rate)
        return tuple(found)


def _check_learning_rates(learning_rates: float | Sequence[float], num_models: int) -> tuple[float, ...]:
    rates = list(learning_rates) if isinstance(learning_rates, Sequence) else [learning_rates] * num_models
    if not all(is_number(rate) for rate in rates):
        raise TypeError(describe("`learning_rates` must be numbers.", {"learning_rates": learning_rates}))
    require(
        len(rates) == num_models,
        f"One learning rate is needed for each of {num_models} checkpoints, or one number for all; "
        f"there are {len(rates)}.",
        {"learning_rates": learning_rates},
    )
    require(
        all(math.isfinite(rate) and rate >= 0 for rate in rates),
        "`learning_rates` must be finite and not negative.",
        {"learning_rates": learning_rates},
    )
    return tuple(float(rate) for rate in rates)
