"""RepresenterPointLJE: the model's own last layer as a sum over training examples."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import keras
import numpy as np
import scipy.linalg
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_positive, describe, require
from deel_dualview.calculators.contributions import FeatureContributions, Pairs
from deel_dualview.calculators.represented import Represented
from deel_dualview.calculators.stored import StoredInfluenceCalculator
from deel_dualview.calculators.targets import has_one_logit, num_outputs, output_gradients
from deel_dualview.curvature.outputs import OutputGram
from deel_dualview.linalg import spans
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.models import InfluenceModel
from deel_dualview.models.heads import LinearHead
from deel_dualview.models.objectives import Objective
from deel_dualview.stores import Store
from deel_dualview.typing import Target

_SIZE_LIMIT = 12_000
# The Hessian is summed from products in float32.
_ILL_CONDITIONED = 1e6


@dataclass(frozen=True)
class Expansion:
    """The expansion at theta* = theta + gamma * gradient.

    Attributes:
        weights: theta*, shape (outputs, d), float64.
        errors: gradient of every training example's loss in the outputs at theta* (p - y of cross-entropy) times its
            weight, shape (n, outputs), float32.
        factor: lower Cholesky factor of H, the damped Hessian of the mean loss at theta*, shape (p, p) with
            p = outputs * d; what is above its diagonal is arbitrary. With a basis that of H in its coordinates.
        damping: what was added to the Hessian's diagonal.
        condition_number: of the damped Hessian, or that in coordinates (in the 1-norm).
        shared: theta* + H^-1 g(theta), of which every example has one n-th, shape (outputs, d), float64.
        residual: norm of H^-1 g(theta) over norm of theta: 0 for a last layer that is trained to convergence.
            It is the length of the Newton step that training left undone, and what the paper neglects.
        basis: of the span of few examples with many features, outside of which H is the damping alone, shape (d, n),
            float64; else None.
    """

    weights: np.ndarray
    errors: np.ndarray
    factor: np.ndarray
    damping: float
    condition_number: float
    shared: np.ndarray
    residual: float
    basis: tf.Tensor | None = None

    def solve(self, rows: np.ndarray) -> np.ndarray:
        """Return H^-1 times rows (n, outputs * d)."""

        def inverse(formed: tf.Tensor) -> tf.Tensor:
            return tf.constant(_solve(self.factor, formed.numpy()))

        return spans.solve(inverse, tf.constant(rows, tf.float64), self.basis, self.damping).numpy()


class RepresenterPointLJE(StoredInfluenceCalculator):
    """Representer points of the model itself, without retraining.

    With theta* one step of gradient ascent from the last layer theta, g_i the gradient of example i's loss
    and H the damped Hessian of the mean loss, both at theta*, a training example has the row `v_i = (theta* +
    H^-1 g - H^-1 g_i) / n`; the influence of i on output j (the logit of a class, or a predicted number) at x is
    entry j of `v_i phi(x)`. Summed over i it is the model's output j up to terms of order gamma, so one unit is one
    unit of that output; `correlation` measures how well. A value above the mean, which is that output / n, means that
    the example raises the output, a value below that it lowers it.

    With sample or class weights w_i (in g, g_i and H, too) the part that all share equally is shared in proportion to
    them.

    g is the gradient of the mean loss at theta. The paper takes it for zero (equation 7), which it is not for
    a network that was stopped early: without it contributions would add up to the logits of another layer,
    one Newton step away (`expansion.residual` tells how far). Like theta*, it has the same share in every
    v_i: it changes no ranking.

    The bias of a last layer enters as a constant feature 1. A binary classifier with one output is
    explained on the logits (-z / 2, z / 2). Self-influence is entry y_i of `v_i phi_i`; of another objective than the
    softmax it is summed over the outputs, labels that do not hold with a negative sign.

    The inverse is applied to queries, never to all training examples. The constructor makes one pass over the
    training set for features, then forms and factorises the (p, p) Hessian, of far more features than examples in the
    span of these.

    Args:
        model: the model to explain; it needs a linear last layer.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        gamma: step size of the ascent, 1e-5 to 1e-2 in the paper; values hardly depend on it.
        damping: added to the Hessian's diagonal, as a multiple of its mean eigenvalue. Softmax makes the
            Hessian singular without it, and so do dead features. The sum of contributions does not depend on
            it.
        target: which output of an evaluated example is explained: `"prediction"`, `"label"` or an index.
        store: where the features are kept; in memory by default.

    Attributes:
        expansion: theta*, the factorised Hessian, its damping and condition number.

    Raises:
        ValueError: bad settings, labels or datasets, a model without a linear last layer (all before any long work) or
            with one of more than 12,000 parameters (or outputs * n of far fewer examples n than features), features
            that are not finite, a Hessian that is zero.

    Warns:
        UserWarning: the condition number of the damped Hessian is above 1e6.

    Source: Sui et al. (2021), RPS-LJE, equations 8 to 11. Their 1 / phi_i is never formed: the rows v_i are
        what their code computes.
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        *,
        gamma: float = 1e-4,
        damping: float = 0.1,
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        self.gamma = check_positive("gamma", gamma)
        self.relative_damping = check_positive("damping", damping)
        super().__init__(model, train_set, target=target, store=store)
        self._has_constant_feature = self._check_head()
        self.expansion = self._expand()

    def correlation(self, dataset: tf.data.Dataset) -> float:
        """Return Pearson's correlation of the explained logits of the model with sums of contributions."""
        self._check_queries(dataset)
        data.check_bounded(dataset, "dataset")
        self.check_unchanged()
        logits, sums = [], []
        for represented in self._represented(dataset, "dataset"):
            classes = self._explained_classes(represented)
            queries = self._queries(represented, classes)
            parts = [self._scores(queries, vectors) for _, vectors in self._blocks()]
            sums.append(sum(part.numpy().sum(axis=1, dtype=np.float64) for part in parts))
            logits.append(tf.gather(represented.logits, classes, batch_dims=1).numpy())
        return float(np.corrcoef(np.concatenate(logits), np.concatenate(sums))[0, 1])

    def check_feature_contributions(self) -> None:
        """Allow it: `v_i phi(x)` is a sum over features of x and, but for theta*'s share, over those of example i."""

    def feature_contributions(self, pairs: Pairs) -> FeatureContributions:
        phi, train_phi = (
            tf.cast(self._with_constant(part), tf.float64) for part in (pairs.features, pairs.train_features)
        )
        directions = tf.cast(output_gradients(self.model, pairs.classes), tf.float64)
        errors = tf.constant(self.expansion.errors[pairs.train_indices], tf.float64)
        own = tf.einsum("po,pod->pd", directions, self._solved(errors, train_phi))
        shared = tf.matmul(directions, self.expansion.shared) * self._shares(pairs.train_indices)
        parts = (shared - own) * phi / self.num_train
        back = tf.einsum("po,pod->pd", errors, self._solved(directions, phi))
        train_parts = -back * train_phi / self.num_train
        size = self.model.num_features
        return FeatureContributions(
            tf.cast(parts[:, :size], tf.float32),
            tf.cast(tf.reduce_sum(parts[:, size:], axis=1), tf.float32),
            tf.cast(train_parts[:, :size], tf.float32),
        )

    def _solved(self, left: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        """Return the inverse Hessian times outer products, shape (n, outputs, d), differentiable."""
        rows = tf.reshape(left[:, :, tf.newaxis] * right[:, tf.newaxis], (-1, self.expansion.weights.size))
        expansion = self.expansion

        def inverse(formed: tf.Tensor) -> tf.Tensor:
            return tf.transpose(tf.linalg.cholesky_solve(tf.constant(expansion.factor), tf.transpose(formed)))

        solved = spans.solve(inverse, rows, expansion.basis, expansion.damping)
        return tf.reshape(solved, (-1, *expansion.weights.shape))

    def _check_head(self) -> bool:
        """Return whether the last layer has a bias."""
        head = self.model.head
        if head is None:
            needed = (
                "RepresenterPointLJE explains the weights of a linear last layer, and the features do not "
                "feed one; use RepresenterPointL2, which fits its own."
            )
            raise ValueError(describe(needed, {"feature_layer": self.model.feature_layer}))
        size = self.model.num_features + head.has_bias
        # Before the pass over the training set, unless its examples may be so few that their span is enough.
        if size < spans.LEAST_WIDE or not spans.is_wide(self.num_train, size):
            self._check_size(size)
        return head.has_bias

    def _check_size(self, size: int) -> None:
        require(
            size * num_outputs(self.model) <= _SIZE_LIMIT,
            f"RepresenterPointLJE inverts a p x p Hessian of the last layer, for up to {_SIZE_LIMIT} parameters "
            "(outputs * n where there are far fewer examples n than features); use RepresenterPointL2 instead.",
            {"p": size * num_outputs(self.model)},
        )

    def _expand(self) -> Expansion:
        theta = self._last_layer()
        gradient = self._errors_and_gradient(theta)[1]
        star = theta + self.gamma * gradient
        errors = self._errors_and_gradient(star)[0]
        basis = spans.basis_of((rows for *_, rows in self._phi_and_targets()), self.num_train, star.shape[1])
        self._check_size(star.shape[1] if basis is None else basis.shape[1])
        hessian = self._hessian(star, basis)
        damping = self.relative_damping * float(np.trace(hessian)) / star.size
        require(
            damping > 0,
            "The Hessian of the loss is zero: the model is certain of every training example to the last "
            "digit, the loss has no second derivative (as the mean absolute error), or all features are zero. Train it "
            "with label smoothing or weight decay, or use RepresenterPointL2 or GradDot.",
            {"mean eigenvalue": damping / self.relative_damping},
        )
        factor, condition_number = _cholesky(hessian, damping)
        found = Expansion(star, errors, factor, damping, condition_number, star, 0.0, basis)
        undone = found.solve(gradient.reshape(1, -1)).reshape(star.shape)
        residual = float(np.linalg.norm(undone) / max(np.linalg.norm(theta), np.finfo(np.float64).tiny))
        return replace(found, shared=star + undone, residual=residual)

    def _last_layer(self) -> np.ndarray:
        """Return theta, shape (outputs, d), the bias as last column."""
        head = cast(LinearHead, self.model.head)
        rows = np.vstack([head.kernel, head.bias[np.newaxis]]) if head.has_bias else head.kernel
        # The one output of a binary model is twice its logit of class 1.
        return (2.0 * rows[:, 1:] if self._has_one_logit else rows).T.astype(np.float64)

    def _errors_and_gradient(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the errors (n, outputs) and the gradient of the mean loss (outputs, d) at `weights`."""
        errors, gradient = [], np.zeros_like(weights)
        for *block, _ in self._phi_and_targets():
            own, _, part = _terms(*block, weights, self.model.objective, self._has_one_logit, len(weights))
            errors.append(own.numpy().astype(np.float32))
            gradient += part.numpy() / self.num_train
        return np.concatenate(errors), gradient

    def _hessian(self, weights: np.ndarray, basis: tf.Tensor | None) -> np.ndarray:
        num_inputs = weights.shape[1] if basis is None else basis.shape[1]
        gram = OutputGram(weights.shape[0], num_inputs, self.model.objective.hessian_kind)
        for *block, rooted in self._phi_and_targets():
            _, factor, _ = _terms(*block, weights, self.model.objective, self._has_one_logit, len(weights))
            gram.add(spans.inside(rooted, basis), factor)
        return gram.mean()

    def _phi_and_targets(self) -> Iterator[tuple[tf.Tensor, tf.Tensor, tf.Tensor | None, tf.Tensor]]:
        """Yield phi (b, d), targets, weights (b, 1), None if all are 1, and phi times their roots."""
        for rows, represented in self._features():
            phi, targets = self._with_constant(represented.features), tf.constant(self.train_labels[rows])
            if represented.weights is None:
                yield phi, targets, None, phi
            else:
                weights = represented.weights[:, np.newaxis]
                yield phi, targets, tf.constant(weights, tf.float64), phi * np.sqrt(weights)

    def _shares(self, rows: np.ndarray) -> np.ndarray:
        """Return the part of training examples in what all share, in units of 1 / n, shape (b, 1), float64."""
        if self.train_weights is None:
            return np.ones((len(rows), 1))
        weights = self.train_weights.astype(np.float64)
        return weights[rows, np.newaxis] / max(weights.mean(), np.finfo(np.float64).tiny)

    @property
    def _has_one_logit(self) -> bool:
        return has_one_logit(self.model)

    def _vectors(self, rows: np.ndarray, represented: Represented) -> Blocks:
        features = self._with_constant(represented.features)
        constants = tf.constant(self._shares(rows), tf.float32)
        return OuterProduct(tf.constant(self.expansion.errors[rows]), features), constants

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        phi = self._with_constant(represented.features).numpy().astype(np.float64)
        directions = output_gradients(self.model, classes).numpy()
        gradients = directions[:, :, np.newaxis] * phi[:, np.newaxis]
        solved = self.expansion.solve(gradients.reshape(len(phi), self.expansion.weights.size))
        shared = np.einsum("mo,od,md->m", directions, self.expansion.shared, phi, optimize=True)
        parts = (-solved / self.num_train, shared[:, np.newaxis] / self.num_train)
        return tuple(tf.constant(part, tf.float32) for part in parts)


@tf.function(reduce_retracing=True, autograph=False)
def _terms(
    features: tf.Tensor,
    targets: tf.Tensor,
    sample_weight: tf.Tensor | None,
    weights: tf.Tensor,
    objective: Objective,
    has_one_logit: bool,
    num_outputs: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return gradients of the weighted losses in the outputs (b, c), factors of Hessians and the gradient (c, d)."""
    features = tf.cast(features, tf.float64)
    outputs = tf.ensure_shape(tf.matmul(features, weights, transpose_b=True), (None, num_outputs))
    if has_one_logit:
        factor = tf.nn.sigmoid(outputs)
        smoothing = objective.label_smoothing
        errors = factor - (tf.cast(targets[:, tf.newaxis], tf.float64) * (1.0 - smoothing) + smoothing / 2.0)
    else:
        errors = objective.loss_gradient(outputs, targets)
        factor = objective.hessian_factor(outputs, targets)
    if sample_weight is not None:
        errors *= sample_weight
    return errors, factor, tf.matmul(errors, features, transpose_a=True)


def _solve(factor: np.ndarray, rows: np.ndarray) -> np.ndarray:
    solution, _ = scipy.linalg.lapack.dpotrs(factor, rows.T, lower=True)
    return solution.T


def _cholesky(matrix: np.ndarray, damping: float) -> tuple[np.ndarray, float]:
    """Return the Cholesky factor of a symmetric matrix + damping * I, and the condition number of that sum.

    Raises:
        LinAlgError: it is not positive definite; the message has the smallest eigenvalue.
    """
    damped = matrix.copy()
    np.fill_diagonal(damped, np.diag(matrix) + damping)
    largest_sum = float(np.abs(damped).sum(axis=1).max())
    factor, failed = scipy.linalg.lapack.dpotrf(damped.T, lower=True, clean=False, overwrite_a=True)
    if failed:
        smallest = float(scipy.linalg.eigvalsh(matrix, subset_by_index=[0, 0])[0]) + damping
        needed = "The damped Hessian is not positive definite: use more `damping`."
        raise np.linalg.LinAlgError(describe(needed, {"smallest eigenvalue": smallest}))
    reciprocal, _ = scipy.linalg.lapack.dpocon(factor, largest_sum, uplo="L")
    condition_number = 1.0 / max(float(reciprocal), np.finfo(np.float64).tiny)
    if condition_number > _ILL_CONDITIONED:
        warnings.warn(
            describe(
                "The damped Hessian is badly conditioned, so that rounding errors reach the influence "
                "values: use more `damping`.",
                {"condition_number": condition_number},
            ),
            stacklevel=4,
        )
    return factor, condition_number
