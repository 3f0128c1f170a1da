"""RelatIF: influence relative to how much an example changes the model at all."""

from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from deel_dualview import data
from deel_dualview._checks import require
from deel_dualview.calculators.inverse_hessian import InverseHessianCalculator
from deel_dualview.ihvp import InverseHessianVectorProduct
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.factors import scaled
from deel_dualview.linalg.outer_product import OuterProduct
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

    An example without a gradient (fitted exactly, to the precision of float32) changes nothing: its influence
    is 0.

    The constructor needs one solve for every training example, in batches; use large ones.

    Args:
        model: the classifier to explain.
        train_set: its training set, batched, elements `(inputs, labels)` or `(inputs, labels, ids)`.
        ihvp: the inverse Hessian, which also chooses the weights; by default `ExactIHVP(model, train_set)`.
        normalisation: `"theta"` (the paper's recommendation) or `"loss"`.
        target: which class' loss of a query is explained: `"prediction"`, `"label"` or a class index.
        store: where the normalised gradients of the training examples are kept; in memory by default.

    Raises:
        ValueError: an unknown normalisation.

    Source: Barshan et al. (2020), equations 8 (theta) and 10 (loss).
    """

    def __init__(
        self,
        model: InfluenceModel,
        train_set: tf.data.Dataset,
        ihvp: InverseHessianVectorProduct | None = None,
        *,
        normalisation: Normalisation = "theta",
        target: Target = "prediction",
        store: Store | None = None,
    ) -> None:
        names = get_args(Normalisation)
        require(
            normalisation in names,
            f"`normalisation` must be one of {names}.",
            {"normalisation": normalisation},
        )
        self.normalisation = normalisation
        super().__init__(model, train_set, ihvp, target=target, store=store)

    def _settings(self) -> dict[str, str]:
        return {"normalisation": self.normalisation, **self.ihvp.describe()}

    def _influence_vectors(self, batch: data.Batch) -> Blocks:
        gradients = _unit_scaled(self._training_gradients(batch))
        solved = self._solved(gradients)
        changes = blocks.squared_norms(solved)
        if self.normalisation == "loss":
            changes = tf.maximum(blocks.row_products(solved, gradients), 0.0)
        return scaled(gradients, tf.math.divide_no_nan(1.0, tf.sqrt(changes))[:, tf.newaxis])

    def _queries(self, batch: data.Batch, classes: np.ndarray) -> Blocks:
        return self._solved(self._query_gradients(batch, classes))


def _unit_scaled(vectors: Blocks) -> Blocks:
    """Return every row at a largest entry near 1, so that the squares of tiny gradients do not vanish."""
    lefts = [block.left if isinstance(block, OuterProduct) else block for block in vectors]
    largest = tf.reduce_max([tf.reduce_max(tf.abs(left), axis=1) for left in lefts], axis=0)
    return scaled(vectors, tf.math.divide_no_nan(1.0, largest)[:, tf.newaxis])
