"""RelatIF: influence relative to how much an example changes the model at all."""

from typing import Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import check_choice
from deel_dualview.calculators.inverse_hessian import InverseHessianCalculator
from deel_dualview.calculators.represented import Represented
from deel_dualview.gradients import UnitGradients
from deel_dualview.ihvp import InverseHessianVectorProduct
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks, scaled
from deel_dualview.models import InfluenceModel
from deel_dualview.stores import Store
from deel_dualview.typing import Target

Normalisation = Literal["theta", "loss"]
"""By the change of the weights, ||H^-1 g_i||, or by that of the losses, sqrt(g_i' H^-1 g_i)."""


class RelatIF(InverseHessianCalculator):
    """Relative influence: `g(x)' H^-1 g_i / ||H^-1 g_i||`, or `g(x)' H^-1 g_i / sqrt(g_i' H^-1 g_i)`.

    Among training examples that change the model equally much when they are removed, which change this
    query's loss most? Outliers with large gradients, which lead every list of plain influence functions, no
    longer do. One unit is one unit of the query's loss for a unit of change of the weights (`"theta"`), or of
    the root of the summed squared changes of the training losses (`"loss"`). Positive: a proponent. The sizes
    of different examples' changes are not compared, so a sum over examples means nothing.

    An example without a gradient (features that are all zero) changes nothing: its influence is 0. One that is
    fitted well counts by the direction of its gradient, however small that is.

    The constructor needs one solve for every training example, in batches; use large ones.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        ihvp: the inverse Hessian, which also chooses the weights; by default `ExactIHVP(model, train_set)`.
        normalisation: `"theta"` (the paper's recommendation) or `"loss"`.
        target: which class' loss of a query is explained: `"prediction"`, `"label"` or a class index.
        store: where the features or normalised gradients of the training examples are kept; by default where `ihvp` has
            them, or in memory.

    Raises:
        ValueError: an unknown normalisation.

    Source: Barshan et al. (2020), equations 8 (theta) and 10 (loss).
    """

    def __init__(
        self,
        model: keras.Model | InfluenceModel,
        train_set: tf.data.Dataset,
        ihvp: InverseHessianVectorProduct | None = None,
        *,
        normalisation: Normalisation = "theta",
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        check_choice("normalisation", normalisation, get_args(Normalisation))
        self.normalisation = normalisation
        super().__init__(model, train_set, ihvp, target=target, store=store)

    def _settings(self) -> dict[str, str]:
        return {"normalisation": self.normalisation, **self.ihvp.describe()}

    def _prepare(self) -> None:
        first = data.unpack(data.first_batch(self.train_set, "train_set"))
        self.ihvp.gradients.prepare(first.inputs, self.model.training_targets(first.labels))
        self._directions = UnitGradients(self.ihvp.gradients)

    def _training_gradients(self, represented: Represented) -> Blocks:
        """Return the gradients of the losses of the labels at unit length: their size does not matter."""
        return represented.training_gradients(self._directions)

    def _influence_vectors(self, represented: Represented) -> Blocks:
        gradients = blocks.unit(self._training_gradients(represented))
        solved = self._solved(gradients)
        if self.normalisation == "theta":
            return scaled(gradients, _inverses(blocks.norms(solved)))
        changes = tf.cast(blocks.row_products(solved, gradients), tf.float64)
        return scaled(gradients, _inverses(tf.sqrt(tf.maximum(changes, 0.0))))

    def _queries(self, represented: Represented, classes: np.ndarray) -> Blocks:
        return self._solved(self._query_gradients(represented, classes))


def _inverses(sizes: tf.Tensor) -> tf.Tensor:
    """Return 1 / sizes (n,) as a column, 0 where a size is 0."""
    return tf.cast(tf.math.divide_no_nan(tf.constant(1.0, tf.float64), sizes), tf.float32)[:, tf.newaxis]
