"""Trak: random features of gradients, as if the model were a logistic regression on them."""

import numpy as np
import scipy.linalg
import tensorflow as tf

from deel_dualview._checks import check_positive, require
from deel_dualview.calculators.checkpoints import CheckpointGradients, Models, check_models
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.gradients import Weights
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks, scaled
from deel_dualview.linalg.projections import IdentityProjection, Projection
from deel_dualview.models import InfluenceModel
from deel_dualview.models.train_sets import is_split
from deel_dualview.search.faiss_index import FaissIndex, check_index
from deel_dualview.stores import Store
from deel_dualview.typing import Function, Target

_LARGEST_SIZE = 16384
_LAST_LAYER, _OTHER_WEIGHTS = 1e-3, 1.0
"""Defaults of the damping; the second was chosen on one network and confirmed on two (`bench_retraining_lds.py`)."""


class Trak(StoredInfluenceCalculator):
    """Tracing with the randomly projected after kernel: one Newton step on gradient features, ensembled.

    With features phi(x) = P grad f(x) of the margin f = log(p / (1 - p)) and M checkpoints,

        value(x, i) = mean_m [phi_m(x)' (Phi_m' Phi_m + lambda I)^-1 phi_m(x_i)] * mean_m [1 - p_m(y_i |
        x_i)].

    Positive where the training example raises the margin of the explained class. One unit is one nat of log
    odds: the predicted fall of the margin when the training example is removed (up to the Hessian's weights p
    (1 - p), which the paper leaves out too). The explained class is what the *last* checkpoint given says.

    Of a model with one output z and another loss, f = z, and minus the derivative of the loss takes the place of 1 - p:
    one unit is one unit of z, up to the second derivative of the loss, which the paper leaves out too (values of
    squared error are twice the change of z).

    The inverse is regularised relatively, lambda = relative_damping * trace(Phi' Phi) / k: the paper's matrix
    is singular where a feature is dead, and always in the last layer of a softmax, whose logits may be
    shifted.

    Holds k numbers a training example and checkpoint, and k x k numbers a checkpoint, k = `projection.size`,
    or the number of weights without a projection (then at most 16,384).

    Args:
        models: checkpoints of one architecture, or independently trained models, or one model.
        train_set: the training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        weights: in which weights gradients are taken: `"last"`, `"all"` or names of layers.
        projection: a random projection of the gradients, needed for many weights; none by default.
        relative_damping: lambda in units of the mean eigenvalue of Phi' Phi; by default 1e-3 for the last layer and
            1 for other weights, which predicts retraining better there.
        target: which class of an evaluated example is explained.
        store: where features of the training examples are kept.
        index: for millions of training examples, see `FaissIndex`; every example is compared by default.

    Raises:
        TypeError: a checkpoint that is not a model.
        ValueError: a model with several outputs that is no classifier, checkpoints of different architectures, too
            many features for a matrix k x k, gradients that are all zero or not finite (of which examples).

    Source: Park et al. (2023), equations 13 to 16, without the soft threshold.
    """

    _takes_positions = False

    def __init__(
        self,
        models: Models,
        train_set: tf.data.Dataset,
        *,
        weights: Weights = "last",
        projection: Projection | None = None,
        relative_damping: float | None = None,
        target: Target = "prediction",
        store: Store | None = None,
        index: FaissIndex | None = None,
    ) -> None:
        check_index(index)
        checkpoints = check_models(models)
        if relative_damping is None:
            relative_damping = (
                _LAST_LAYER if isinstance(weights, str) and weights == "last" else _OTHER_WEIGHTS
            )
        self.relative_damping = check_positive("relative_damping", relative_damping)
        self.gradients = CheckpointGradients(
            checkpoints, weights=weights, function=_function_of(checkpoints[0]), projection=projection
        )
        super().__init__(checkpoints[-1], train_set, target=target, store=store)
        self.gradients.prepare(train_set)
        self._rely_on(*self.gradients.records)
        if isinstance(projection, IdentityProjection | None):
            _check_size(self.gradients.of_models[0].size)
        _check_size(self._spec[0].shape[1])
        self._stored()
        # Cholesky factors of Phi' Phi + lambda I at each checkpoint, float64.
        self._factors = [self._factor(gram) for gram in self._grams()]
        self._use_index(index)

    def compute_influence_vector(self, train_set: tf.data.Dataset | None = None) -> tf.data.Dataset:
        """Return the influence vectors phi_m(x_i) * mean_m (1 - p_m), lazily, a block (b, k) a checkpoint."""
        self._check_same_train_set(train_set)
        return self._lazy_dataset(
            lambda: (_weighted(features) for _, features in self._blocks()), self._spec[:-1]
        )

    def _settings(self) -> dict[str, str]:
        return self.gradients.describe()

    @property
    def _keeps_features(self) -> bool:
        return False

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        """Return the features of each checkpoint and, last, the mean of 1 - p, shape (b, 1).

        Stored apart: the Gram matrices are of features without weights.
        """
        targets, of_models = represented.targets, self.gradients.represented(represented)
        weights = [self._weight(batch.logits, targets) for batch in of_models]
        explained = targets if self.model.is_classifier else np.zeros(len(targets), np.int64)
        found = [blocks.to_dense(gradients) for gradients in self.gradients(of_models, explained)]
        mean = tf.add_n(weights)[:, tf.newaxis] / len(weights)
        return (
            *found,
            *scaled((mean,), 1.0 if represented.weights is None else represented.weights[:, None]),
        )

    def _weight(self, outputs: tf.Tensor, targets: np.ndarray) -> tf.Tensor:
        """Return minus the derivative of the loss by f, shape (b,)."""
        gradients = -self.model.objective.loss_gradient(outputs, tf.constant(targets))
        # Of a class 1 - p, without cancellation where p is near 1; less where its label is smoothed.
        return tf.gather(gradients, targets, batch_dims=1) if self.model.is_classifier else gradients[:, 0]

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        if not self.model.is_classifier:
            # The gradient of the one output, whatever its label.
            classes = np.zeros(len(classes), np.int64)
        return self._solved([blocks.to_dense(rows) for rows in self.gradients.checked(represented, classes)])

    def _own_queries(self, vectors: Blocks) -> Blocks:
        return self._solved(list(vectors[:-1]))

    @property
    def _weights_of_own_queries(self) -> None:
        """Nothing: features are stored without weights."""

    def _solved(self, features: list[tf.Tensor]) -> Blocks:
        return tuple(
            tf.constant(self._solve(factor, rows.numpy()) / len(features), tf.float32)
            for factor, rows in zip(self._factors, features, strict=True)
        )

    def _scores(self, queries: Blocks, vectors: Blocks) -> tf.Tensor:
        # Scaling m x n scores is cheaper than scaling n x k features again for every block of queries.
        *features, doubt = vectors
        return super()._scores(queries, tuple(features)) * tf.transpose(blocks.to_dense((doubt,)))

    def _row_scores(self, queries: Blocks, vectors: Blocks) -> tf.Tensor:
        return blocks.row_products(queries, _weighted(vectors))

    @staticmethod
    def _solve(factor: np.ndarray, features: np.ndarray) -> np.ndarray:
        return scipy.linalg.cho_solve((factor, True), features.T.astype(np.float64)).T

    def _grams(self) -> list[np.ndarray]:
        """Return Phi' Phi at each checkpoint, every row of the weight of its example, summed in float64."""
        width = sum(self._spec[0].shape[1:])
        grams = [np.zeros((width, width)) for _ in self.gradients.models]
        for indices, (*features, _) in self._blocks():
            for gram, block in zip(grams, features, strict=True):
                rows = np.asarray(block, np.float64)
                if self.train_weights is None:
                    gram += rows.T @ rows
                else:
                    gram += rows.T @ (rows * self.train_weights[indices, np.newaxis])
        return grams

    def _factor(self, gram: np.ndarray) -> np.ndarray:
        mean = float(np.trace(gram)) / len(gram)
        require(
            mean > 0,
            "Trak needs gradients that are not all zero: the model does not depend on the chosen weights.",
            {"trace": mean},
        )
        return np.linalg.cholesky(gram + self.relative_damping * mean * np.eye(len(gram)))


def _function_of(model: InfluenceModel) -> Function:
    """Return what is differentiated: the margin, or (by an output as the target) minus the output.

    Raises:
        ValueError: several outputs that are no classes.
    """
    if not is_split(model) or model.is_classifier:
        return "margin"
    require(
        model.num_outputs == 1,
        "Trak is for classifiers and for models with one output; use GradDot or FirstOrderInfluenceCalculator.",
        {"outputs": model.num_outputs, "objective": model.objective},
    )
    return "loss"


def _check_size(size: int) -> None:
    require(
        size <= _LARGEST_SIZE,
        f"Trak solves with a matrix of k x k numbers, k the number of weights without a projection, at most "
        f"{_LARGEST_SIZE}: give `projection=FactoredProjection(512)` or choose fewer weights.",
        {"k": size},
    )


def _weighted(vectors: Blocks) -> Blocks:
    *features, doubt = vectors
    return scaled(tuple(features), blocks.to_dense((doubt,)))
