"""Curvature of the mean loss in the weights of chosen layers, by differentiating twice."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.curvature.base import Curvature, CurvatureKind
from deel_dualview.curvature.outputs import output_products
from deel_dualview.gradients import WeightGroup, Weights, select_groups
from deel_dualview.gradients.capture import call_for_logits
from deel_dualview.linalg.operators import LinearOperator
from deel_dualview.models import InfluenceModel, tracing

_SHUFFLED_EXAMPLES = 4096


class LayersCurvature(Curvature):
    """Hessian or Gauss-Newton matrix of the mean loss in chosen weights, known by its products.

    A product passes over the examples once, and costs about four gradients a batch and row. Labels take part in the
    Hessian, and in the Gauss-Newton matrix only of a `Huber` or `CustomLoss`. The model is in inference mode; what
    does not depend on a weight through differentiable operations contributes nothing.

    Args:
        model: the model, with its objective.
        examples: batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        weights: `"last"`, `"all"` or names of layers.
        kind: `"hessian"`, which may have negative eigenvalues, or `"gauss-newton"`, which has none.

    Raises:
        ValueError: no such layer, or one without trainable weights.
    """

    def __init__(
        self,
        model: InfluenceModel,
        examples: tf.data.Dataset,
        *,
        weights: Weights = "all",
        kind: CurvatureKind = "hessian",
    ) -> None:
        self.model = model
        self.examples = examples
        self.kind = kind
        if not model.is_prepared:
            model.prepare(data.unpack(data.first_batch(examples, "examples")).inputs)
        self._groups = select_groups(model, weights)
        self._products: dict[str, Callable[..., tf.Tensor]] = {}

    @property
    def size(self) -> int:
        return sum(group.size for group in self._groups)

    @cached_property
    def num_examples(self) -> int:
        return sum(data.num_examples(data.unpack(element)[:2]) for element in self.examples)

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        total, num_examples = tf.zeros_like(rows), 0
        for element, part in data.map_elements(
            lambda batch: self.batch_sum(batch, rows), self.examples, "examples"
        ):
            total += part
            num_examples += data.num_examples(element)
        return total / num_examples

    def to_dense(self) -> tf.Tensor:
        """Return the matrix by p products, shape (p, p), without the asymmetry of their rounding."""
        dense = super().to_dense()
        return (dense + tf.transpose(dense)) / 2

    def sampled(self, batch_size: int, seed: int) -> Iterator[LinearOperator]:
        shuffled = self.examples.unbatch().shuffle(_SHUFFLED_EXAMPLES, seed=seed).repeat().batch(batch_size)
        for element in shuffled:
            yield _BatchCurvature(self, data.unpack(element), batch_size)

    def batch_sum(self, batch: data.Batch, rows: tf.Tensor) -> tf.Tensor:
        """Return the products of rows (n, p) with the sum of the matrices of a batch, shape (n, p)."""
        inputs = tf.nest.map_structure(tf.convert_to_tensor, batch.inputs)
        labels = self.model.to_targets(batch.labels)
        weights = self.model.example_weights(labels, data.sample_weights(batch))
        targets = tf.convert_to_tensor(labels)
        weights = tf.ones(len(labels)) if weights is None else tf.convert_to_tensor(weights)
        specs = tf.nest.map_structure(tracing.relaxed_spec, (inputs, targets, weights, rows))
        with self.model.lock:
            if (key := repr(specs)) not in self._products:
                make = self._hessian_products if self.kind == "hessian" else self._gauss_newton_products
                function = tf.function(make, autograph=False, input_signature=specs)
                function.get_concrete_function()
                self._products[key] = function
        products = self._products[key](inputs, targets, weights, rows)
        require(
            bool(tf.reduce_all(tf.math.is_finite(products))),
            "The curvature of the loss must be finite: check the training set, and the model's weights, for "
            "NaN, infinity or huge numbers.",
            {"num_examples of the batch": len(targets)},
        )
        return products

    def _hessian_products(
        self, inputs: Any, targets: tf.Tensor, weights: tf.Tensor, rows: tf.Tensor
    ) -> tf.Tensor:
        """Differentiate backwards twice; forward mode fails on recurrent layers."""
        values = self._values()

        def product(row: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(values)
                with tf.GradientTape(watch_accessed_variables=False) as inner:
                    inner.watch(values)
                    logits = call_for_logits(self.model, inputs)
                    loss = tf.reduce_sum(weights * self.model.objective.loss(logits, targets))
                slices = inner.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
                # Dense, since an Embedding's is a set of slices; seen by the outer tape.
                gradients = [tf.convert_to_tensor(gradient) for gradient in slices]
            products = outer.gradient(
                gradients, values, self._unflat(row), unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return self._flat(products)

        return tf.map_fn(product, rows)

    def _gauss_newton_products(
        self, inputs: Any, targets: tf.Tensor, weights: tf.Tensor, rows: tf.Tensor
    ) -> tf.Tensor:
        """J' w B J row, where J row is the gradient of <J' u, row> with respect to any u."""
        values, objective = self._values(), self.model.objective

        def product(row: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(values)
                logits = call_for_logits(self.model, inputs)
            dummy = tf.zeros_like(logits)
            with tf.GradientTape(watch_accessed_variables=False) as outer:
                outer.watch(dummy)
                pulled = tape.gradient(
                    logits, values, output_gradients=dummy, unconnected_gradients=tf.UnconnectedGradients.ZERO
                )
                # Dense, since an Embedding's is a set of slices.
                inner = tf.add_n(
                    [
                        tf.reduce_sum(tf.convert_to_tensor(gradient) * part)
                        for gradient, part in zip(pulled, self._unflat(row), strict=True)
                    ]
                )
            pushed = outer.gradient(inner, dummy, unconnected_gradients=tf.UnconnectedGradients.ZERO)
            factor = objective.hessian_factor(logits, targets)
            weighted = output_products(factor, pushed[:, tf.newaxis], objective.hessian_kind)[:, 0]
            weighted *= weights[:, tf.newaxis]
            return self._flat(
                tape.gradient(
                    logits,
                    values,
                    output_gradients=weighted,
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
            )

        return tf.map_fn(product, rows)

    def _values(self) -> list[tf.Variable]:
        # A tape does not know a Keras variable: it watches what that holds.
        return [variable.value for group in self._groups for variable in group.variables]

    def _unflat(self, row: tf.Tensor) -> list[tf.Tensor]:
        parts = tf.split(row[tf.newaxis], [group.size for group in self._groups], axis=1)
        pairs: list[tuple[WeightGroup, tf.Tensor]] = list(zip(self._groups, parts, strict=True))
        return [tensor[0] for group, part in pairs for tensor in group.unflatten(part)]

    def _flat(self, tensors: list[tf.Tensor]) -> tf.Tensor:
        rest = iter([tf.convert_to_tensor(tensor)[tf.newaxis] for tensor in tensors])
        rows = [group.flatten([next(rest) for _ in group.variables]) for group in self._groups]
        return tf.concat(rows, axis=1)[0]


class _BatchCurvature(LinearOperator):
    """Curvature of one batch of examples."""

    def __init__(self, curvature: LayersCurvature, batch: data.Batch, batch_size: int) -> None:
        self._curvature, self._batch, self._batch_size = curvature, batch, batch_size

    @property
    def size(self) -> int:
        return self._curvature.size

    def matmul(self, rows: tf.Tensor) -> tf.Tensor:
        return self._curvature.batch_sum(self._batch, rows) / self._batch_size
