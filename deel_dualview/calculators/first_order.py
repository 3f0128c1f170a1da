"""FirstOrderInfluenceCalculator: influence functions, of single examples and of groups."""

import numpy as np
import tensorflow as tf

from deel_dualview.calculators.groups import InfluenceOfGroups
from deel_dualview.calculators.inverse_hessian import InverseHessianCalculator
from deel_dualview.calculators.represented import Represented
from deel_dualview.linalg.blocks import Blocks, scaled


class FirstOrderInfluenceCalculator(InfluenceOfGroups, InverseHessianCalculator):
    """Influence functions: `g(x)' H^-1 g_i / n`.

    One unit is one unit of loss: the value is the predicted increase of the query's cross-entropy for the
    explained class when training example i is removed from the training objective, in which the others keep
    their weight 1 / n. Positive: the example lowers that loss (a proponent). Self-influence, never negative
    for a positive definite H, is the predicted increase of an example's own loss.

    g are gradients of the loss in the chosen weights; H is the curvature of the mean loss, plus the
    regularisation of the objective and the damping. The prediction is right to first order in 1 / n, for
    weights at an optimum of the objective; examples of high leverage change more than it says (see
    `LeverageCorrectedInfluenceCalculator`).

    The constructor runs the network once over the training set and keeps the features that gradients in the last
    layer follow from (elsewhere, or with `EkfacIHVP`, the gradients; with that in its eigenbasis); one solve with H
    per query. Queries are dense, so that few of many weights are in work at once: 32 MiB of them.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        ihvp: the inverse Hessian, which also chooses the weights; by default `ExactIHVP(model, train_set)`.
        target: which class' loss of a query is explained: `"prediction"`, `"label"` or a class index.
        store: where the features or gradients of the training examples are kept; by default where `ihvp` has
            them, or in memory.

    Source: Koh and Liang (2017), equation 2 with the sign of the removal; groups: Koh et al. (2019), equation
        2.
    """

    def _settings(self) -> dict[str, str]:
        return self.ihvp.gradients.describe() | self.ihvp.describe_coordinates()

    def _influence_vectors(self, represented: Represented) -> Blocks:
        return self.ihvp.coordinates(self._training_gradients(represented))

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        return self._solved_coordinates(self.ihvp.coordinates(self._query_gradients(represented, classes)))

    def _own_queries(self, vectors: Blocks) -> Blocks:
        return self._solved_coordinates(vectors)

    def _solved_coordinates(self, coordinates: Blocks) -> Blocks:
        return scaled(self.ihvp.solve_coordinates(coordinates), 1 / self.num_train)

    def _vector_norms(self, vectors: Blocks) -> tf.Tensor:
        return self.ihvp.vector_norms(vectors)

    def _query_norms(self, queries: Blocks) -> tf.Tensor:
        return self.ihvp.solution_norms(queries)

    def _group_vector(self, group: tf.data.Dataset) -> Blocks:
        return self.ihvp.coordinates(self._gradient_sum(group)[0])
