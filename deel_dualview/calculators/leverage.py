"""LeverageCorrectedInfluenceCalculator: losses after one Newton step without the example."""

from functools import cached_property

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.calculators.inverse_hessian import InverseHessianCalculator
from deel_dualview.calculators.represented import Represented, training_batch
from deel_dualview.ihvp import ExactIHVP, InverseHessianVectorProduct
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.models.objectives import Objective, SoftmaxCrossEntropy
from deel_dualview.search.bounded import Exhaustive, Search

_NUMBERS_AT_ONCE = 2**24


class LeverageCorrectedInfluenceCalculator(InverseHessianCalculator):
    """Change of the query's loss by one Newton step on the objective without the training example.

    Scale and sign are those of `FirstOrderInfluenceCalculator`: the predicted increase of the query's loss
    when example i is removed and the others keep their weight 1 / n; positive for a proponent. First-order
    influence keeps example i in the Hessian and takes the query's loss for linear, and so underestimates what
    the removal of an example of high leverage (alone in its direction) changes, by factors of 2 to 7. Here
    the weights change by `(H - H_i / n)^-1 g_i / n`, and the loss is computed at the changed weights.
    Differences of loss are not additive: values of several examples must not be summed.

    H_i / n = U C U' has the rank of the c outputs, U = I (x) phi_i, so that the vector of an example stays
    factored: `(I - C U' H^-1 U)^-1 delta_i (x) phi_i`, by the Woodbury identity. The constructor needs c^2
    d^2 operations for each training example, as forming the Hessian does; a query c^2 d for each training
    example, c times as many as first order.

    Args:
        model: the model to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        ihvp: an `ExactIHVP` of the last layer and the same training set; by default one with default damping.
        target: which output of a query is explained (of a classifier the loss of which class): `"prediction"`,
            `"label"` or an index.
        store: where the features of the training examples are kept (the vectors, in other layers than the last); by
            default where `ihvp` has them, or in memory.

    Raises:
        ValueError: an `ihvp` that is not exact, of other weights or of a training set of another size.

    Source: Pregibon (1981); Koh et al. (2019), section 3 (one-step Newton approximation).
    """

    def _prepare(self) -> None:
        _exact(self.ihvp)

    def _check_ihvp(self, ihvp: InverseHessianVectorProduct) -> None:
        super()._check_ihvp(ihvp)
        _exact(ihvp)

    def leverages(self, batch: data.Batch) -> tf.Tensor:
        """Return the leverage of every example of a batch, from 0 to the number of outputs, shape (b,).

        It is the trace of C U' H^-1 U, the effective number of parameters that the example alone determines.
        """
        represented = training_batch(self.model, data.unpack(batch)).check_finite()
        ((left, right),) = represented.gradients(self.ihvp.gradients, np.zeros(len(represented), np.int64))
        curvatures = self._logit_curvatures(represented, int(left.shape[1]))
        forms = _quadratic_forms(self._inverse, right)
        return tf.cast(tf.reduce_sum(curvatures * forms, axis=(1, 2)), tf.float32)

    def _settings(self) -> dict[str, str]:
        return self.ihvp.describe()

    def _influence_vectors(self, represented: Represented) -> Blocks:
        ((left, right),) = self._training_gradients(represented)
        curvatures = self._logit_curvatures(represented, int(left.shape[1]))
        return (OuterProduct(_corrected(left, curvatures, _quadratic_forms(self._inverse, right)), right),)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        """Return the responses of outputs to vectors (m, c, c, d), and what the loss is at: outputs and targets.

        Of a classifier they are probabilities and one-hot classes, (m, k).
        """
        require(
            self.num_train == self.ihvp.num_train,
            "The leverage correction needs the inverse Hessian of the training set itself.",
            {"num_train": self.num_train, "num_train of ihvp": self.ihvp.num_train},
        )
        ((_, right),) = self._query_gradients(represented, classes)
        responses = tf.tensordot(right, self._inverse, [[1], [1]]) / self.num_train
        if self.model.is_classifier:
            return responses, tf.nn.softmax(represented.logits), tf.one_hot(classes, self.model.num_outputs)
        return responses, represented.logits, tf.constant(classes)

    def _scores(self, queries: tuple[tf.Tensor, ...], vectors: Blocks) -> tf.Tensor:
        ((left, right),) = vectors
        num_queries, num_outputs = queries[0].shape[:2]
        num_rows = max(1, _NUMBERS_AT_ONCE // (len(left) * num_outputs**2))
        parts = [
            _loss_changes(
                *(part[start : start + num_rows] for part in queries),
                left,
                right,
                int(num_outputs),
                self.model.objective,
            )
            for start in range(0, num_queries, num_rows)
        ]
        return tf.concat(parts, axis=0)

    def _make_search(self) -> Search:
        # Changes of loss are not bounded by norms.
        return Exhaustive()

    def _row_scores(self, queries: tuple[tf.Tensor, ...], vectors: Blocks) -> tf.Tensor:
        responses, *rest = queries
        ((left, right),) = vectors
        outputs = tf.einsum("iabd,ib,id->ia", responses, left, right)
        return _changes_of_loss(self.model.objective, outputs, *rest)

    @cached_property
    def _inverse(self) -> tf.Tensor:
        """The inverse Hessian, shape (c, d, c, d), float32."""
        num_outputs = 1 if self.model.is_binary else self.model.num_outputs
        num_inputs = self.ihvp.size // num_outputs
        shape = (num_outputs, num_inputs, num_outputs, num_inputs)
        return tf.reshape(tf.cast(_exact(self.ihvp).inverse, tf.float32), shape)

    def _logit_curvatures(self, represented: Represented, num_outputs: int) -> tf.Tensor:
        """Return C = w B / n of examples, w the weight, B the Hessian in the outputs, shape (b, c, c), float64."""
        objective = self.model.objective
        targets = tf.constant(represented.targets) if objective.needs_targets else None
        matrices = objective.hessian(tf.cast(represented.logits, tf.float64), targets)
        if represented.weights is not None:
            matrices *= represented.weights[:, np.newaxis, np.newaxis]
        # Of a single output of two classes it is p (1 - p).
        return matrices[:, -num_outputs:, -num_outputs:] / self.ihvp.num_train


def _exact(ihvp: InverseHessianVectorProduct) -> ExactIHVP:
    """Return an exact inverse in the last layer; any other is refused."""
    if isinstance(ihvp, ExactIHVP) and ihvp.weights == "last":
        head = ihvp.model.split.head
        require(
            head is not None and head.is_plain and head.step is None,
            "The leverage correction knows a last layer that gives the logits by its kernel and bias alone: leave "
            "out the step after it (a temperature, a logit adjustment), LoRA and quantization.",
            {"feature_layer": ihvp.model.feature_layer},
        )
        return ihvp
    needed = "The leverage correction needs ExactIHVP(model, train_set) in the last layer."
    raise ValueError(describe(needed, {"ihvp": type(ihvp).__name__, "weights": ihvp.weights}))


@tf.function(reduce_retracing=True, autograph=False)
def _loss_changes(
    responses: tf.Tensor,
    before: tf.Tensor,
    targets: tf.Tensor,
    left: tf.Tensor,
    right: tf.Tensor,
    num_outputs: int,
    objective: Objective,
) -> tf.Tensor:
    """Return the change of every query's loss (m, n) by every vector left (n, c), right (n, d)."""
    num_queries, (num_vectors, num_inputs) = tf.shape(responses)[0], tf.unstack(tf.shape(right))
    rows = tf.reshape(responses, (num_queries * num_outputs**2, num_inputs))
    products = tf.matmul(rows, right, transpose_b=True)
    products = tf.reshape(products, (num_queries, num_outputs, num_outputs, num_vectors))
    outputs = tf.ensure_shape(tf.einsum("mabn,nb->mna", products, left), (None, None, num_outputs))
    return _changes_of_loss(objective, outputs, before[:, tf.newaxis], targets[:, tf.newaxis])


def _changes_of_loss(
    objective: Objective, outputs: tf.Tensor, before: tf.Tensor, targets: tf.Tensor
) -> tf.Tensor:
    """Return by how much losses grow when outputs change (..., c), shape (...).

    Args:
        objective: whose losses they are.
        outputs: changes of the outputs, shape (..., c).
        before: outputs before, shape (..., c); the probabilities of a classifier.
        targets: shape (...) or (..., c); one-hot classes of a classifier. Both may have ones in the place of leading
            dimensions.
    """
    if isinstance(objective, SoftmaxCrossEntropy):
        if outputs.shape[-1] == 1:
            outputs = tf.concat([-outputs, outputs], axis=-1) / 2
        changes = _changes_of_cross_entropy(outputs, before, targets)
        return changes + objective.smoothing_term(outputs, targets) if objective.label_smoothing else changes
    leading, num_outputs = tf.shape(outputs)[:-1], outputs.shape[-1]
    is_output = targets.dtype.is_integer
    shape = leading if is_output else tf.concat([leading, targets.shape[-1:]], axis=0)
    targets = tf.reshape(tf.broadcast_to(targets, shape), [-1] if is_output else [-1, targets.shape[-1]])
    # float64: the change of a loss is small beside it.
    old = tf.reshape(
        tf.broadcast_to(tf.cast(before, tf.float64), tf.shape(outputs, tf.int32)), [-1, num_outputs]
    )
    new = old + tf.reshape(tf.cast(outputs, tf.float64), [-1, num_outputs])
    changes = objective.evaluate(new, targets) - objective.evaluate(old, targets)
    return tf.reshape(tf.cast(changes, tf.float32), leading)


def _changes_of_cross_entropy(outputs: tf.Tensor, probabilities: tf.Tensor, one_hot: tf.Tensor) -> tf.Tensor:
    """Return by how much cross-entropies grow when outputs change, without cancellation.

    Args:
        outputs: changes of the logits, shape (..., c).
        probabilities: of the classes before, shape (..., c).
        one_hot: the explained classes, shape (..., c).
    """
    relative = outputs - tf.reduce_sum(one_hot * outputs, axis=-1, keepdims=True)
    small = tf.math.log1p(tf.reduce_sum(probabilities * tf.math.expm1(tf.minimum(relative, 1.0)), axis=-1))
    # expm1 overflows beyond 88, where nothing cancels any more.
    large = tf.reduce_logsumexp(tf.math.log(probabilities) + relative, axis=-1)
    return tf.where(tf.reduce_max(relative, axis=-1) > 1.0, large, small)


def _quadratic_forms(inverse: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Return phi' A_ab phi for all pairs a, b of outputs and every example, shape (b, c, c), float64.

    Args:
        inverse: A, shape (c, d, c, d), symmetric.
        features: phi, shape (b, d).
    """
    upper = [_forms_from(inverse[output, :, output:], features) for output in range(inverse.shape[0])]
    padded = [tf.pad(forms, [(0, 0), (output, 0)]) for output, forms in enumerate(upper)]
    matrices = tf.cast(tf.stack(padded, axis=1), tf.float64)
    above = tf.linalg.set_diag(matrices, tf.zeros_like(matrices[:, 0]))
    return matrices + tf.linalg.matrix_transpose(above)


@tf.function(reduce_retracing=True, autograph=False)
def _forms_from(blocks: tf.Tensor, features: tf.Tensor) -> tf.Tensor:
    """Return the forms of blocks (d, k, d), shape (b, k)."""
    num_inputs, num_blocks = tf.shape(features)[1], tf.shape(blocks)[1]
    products = tf.matmul(features, tf.reshape(blocks, (num_inputs, num_blocks * num_inputs)))
    products = tf.reshape(products, (tf.shape(features)[0], num_blocks, num_inputs))
    return tf.linalg.matvec(products, features)


@tf.function(reduce_retracing=True, autograph=False)
def _corrected(left: tf.Tensor, curvatures: tf.Tensor, forms: tf.Tensor) -> tf.Tensor:
    """Return (I - C M)^-1 delta, float32, for C and M (b, c, c) and delta (b, c)."""
    systems = tf.eye(tf.shape(forms)[1], dtype=tf.float64) - tf.matmul(curvatures, forms)
    solved = tf.linalg.solve(systems, tf.cast(left, tf.float64)[:, :, tf.newaxis])
    return tf.cast(solved[:, :, 0], tf.float32)
