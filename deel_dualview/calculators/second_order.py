"""SecondOrderInfluenceCalculator: groups whose examples change the curvature too."""

from typing import Any, cast

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.calculators.groups import InfluenceOfGroups
from deel_dualview.calculators.inverse_hessian import InverseHessianCalculator
from deel_dualview.calculators.represented import Represented, training_batch
from deel_dualview.curvature.outputs import output_products
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks, OuterProduct
from deel_dualview.models.heads import AffineMap


class SecondOrderInfluenceCalculator(InfluenceOfGroups, InverseHessianCalculator):
    """Influence of groups of u examples to second order in their share r = u / n of the training set.

    The value is

        g(x)' H^-1 [(1 - 2 r) g_U + r H_U H^-1 g_U] / (n (1 - r)^2)

    with g_U the sum and H_U the mean curvature of the group's u examples. The scale and the sign are those of
    `FirstOrderInfluenceCalculator`, to which the values tend for small groups: one unit is one unit of the
    query's loss, and positive means that the loss increases when the group is removed. (The formula takes the
    others' weight for 1 / (n - u) after the removal, which matters to a regularised objective alone.)

    Single examples are groups of one: their correction takes one solve for each training example, in the
    constructor.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        ihvp: the inverse Hessian of the same training set; by default `ExactIHVP(model, train_set)`.
        target: which class' loss of a query is explained: `"prediction"`, `"label"` or a class index.
        store: where the features of the training examples are kept (the vectors, in other layers than the last); by
            default where `ihvp` has them, or in memory.

    Raises:
        ValueError: an `ihvp` of a training set of another size; a group of all examples.

    Source: Basu et al. (2020), equation 7, for the removal of the group (their epsilon = -1).
    """

    def _settings(self) -> dict[str, str]:
        return self.ihvp.describe()

    def _prepare(self) -> None:
        require(
            self.ihvp.num_train > 1,
            "Second-order influence needs at least two training examples: nothing is left without the only one.",
            {"num_train": self.ihvp.num_train},
        )
        self._total_weight = (
            self._weight_of(self.train_set) if self.is_weighted else float(self.ihvp.num_train)
        )

    def _weight_of(self, examples: tf.data.Dataset) -> float:
        """Return the sum of the weights of training examples."""
        batches = (
            training_batch(self.model, data.unpack(element))
            for _, element in data.enumerate_examples(examples)
        )
        return sum(float(np.sum(cast(np.ndarray, batch.weights), dtype=np.float64)) for batch in batches)

    def _influence_vectors(self, represented: Represented) -> Blocks:
        gradients = self._training_gradients(represented)
        solved = self._solved(gradients)
        gradients_of, head = self.ihvp.gradients, self.model.split.head
        if gradients_of.is_closed_last_layer and head is not None:
            bent = self._bent_last(represented, gradients, solved, head.step)
        else:
            bent = blocks.from_dense(self._bent_one_by_one(represented, blocks.to_dense(solved)), gradients)
        weights = 1.0 if represented.weights is None else represented.weights[:, np.newaxis]
        return self._combined(gradients, bent, 1, weights)

    def _group_vector(self, group: tf.data.Dataset) -> Blocks:
        gradients, size = self._gradient_sum(group)
        weight = self._weight_of(group) if self.is_weighted else size
        require(
            weight < self._total_weight,
            "A group must be smaller than the training set.",
            {"group": size, "num_train": self.ihvp.num_train},
        )
        solved = blocks.to_dense(self._solved(gradients))
        bent = self.ihvp.curvature_of(group).matmul(solved)
        return self._combined(gradients, blocks.from_dense(bent, gradients), size, weight)

    def _combined(self, gradients: Blocks, bent: Blocks, size: int, weight: Any) -> Blocks:
        """Return [(1 - 2 r) gradients + u / n bent] / (1 - r)^2, where bent is H_U H^-1 gradients.

        r is the share of all weights that the group has, u / n without weights.
        """
        share = weight / self._total_weight
        first = (1 - 2 * share) / (1 - share) ** 2
        second = size / self.ihvp.num_train / (1 - share) ** 2
        pairs = zip(gradients, bent, strict=True)
        return tuple(_weighted_sum(first, own, second, other) for own, other in pairs)

    def _bent_last(
        self, represented: Represented, gradients: Blocks, solved: Blocks, step: AffineMap | None
    ) -> Blocks:
        """Return every example's own curvature times its solved gradient: features are a factor of both.

        The curvature is that of the outputs, which a fixed step may make from those of the layer.
        """
        ((left, right),), (rows,) = gradients, solved
        matrices = tf.reshape(rows, (-1, left.shape[1], right.shape[1]))
        outputs = tf.linalg.matvec(matrices, right)
        if step is not None:
            outputs = tf.matmul(outputs, step.matrix)
        objective = self.model.objective
        targets = tf.constant(represented.targets) if objective.needs_targets else None
        factor = objective.hessian_factor(represented.logits, targets)[:, -outputs.shape[1] :]
        products = output_products(factor, outputs[:, tf.newaxis], objective.hessian_kind)[:, 0]
        if represented.weights is not None:
            products *= represented.weights[:, np.newaxis]
        if step is not None:
            products = tf.matmul(products, step.matrix, transpose_b=True)
        return (OuterProduct(products, right),)

    def _bent_one_by_one(self, represented: Represented, rows: tf.Tensor) -> tf.Tensor:
        labels = represented.targets
        products = []
        for index in range(len(labels)):
            part = slice(index, index + 1)
            inputs = tf.nest.map_structure(lambda tensor, part=part: tensor[part], represented.inputs)
            weights = represented.sample_weight
            named = () if weights is None else ({"sample_weight": weights[part]},)
            single = tf.data.Dataset.from_tensors((inputs, labels[part], *named))
            products.append(self.ihvp.curvature_of(single).matmul(rows[part]))
        return tf.concat(products, axis=0)

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        require(
            self.num_train == self.ihvp.num_train,
            "Second-order influence needs the inverse Hessian of the training set itself.",
            {"num_train": self.num_train, "num_train of ihvp": self.ihvp.num_train},
        )
        return self._solved(self._query_gradients(represented, classes), 1 / self.num_train)


def _weighted_sum(first: float, own: Any, second: float, other: Any) -> Any:
    """Return first * own + second * other, for matrices or for outer products of equal right factors."""
    if isinstance(own, OuterProduct) and isinstance(other, OuterProduct):
        return OuterProduct(first * own.left + second * other.left, own.right)
    return first * blocks.to_dense((own,)) + second * blocks.to_dense((other,))
