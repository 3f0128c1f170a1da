"""Gradients times the diagonal matrix of the optimizer that trained the model."""

import hashlib
from typing import Literal, get_args

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_choice, require
from deel_dualview.gradients.per_example import PerExampleGradients
from deel_dualview.linalg import blocks
from deel_dualview.linalg.blocks import Blocks
from deel_dualview.linalg.projections import IdentityProjection
from deel_dualview.models.optimizer_steps import adam_scales

Preconditioner = Literal["adam"]
"""By which matrix inner products of gradients are taken; without one it is the identity."""


class AdamPreconditioner:
    """The diagonal matrix D of Adam's step, 1 / (sqrt(v_hat) + epsilon) of every weight.

    v_hat is the average of the squared gradients of the batches when training ended: Adam moves a weight by its
    learning rate times D times the average gradient. Inner products <g, D g_i> have vectors g_i as they are, and dense
    queries D g.

    Args:
        gradients: of a model that was compiled with Adam or AdamW, and trained, without a projection.

    Raises:
        ValueError: another optimizer or none, one that has taken no step, weights that it did not train, or a
            projection.

    Source: Kingma and Ba (2015), algorithm 1; Xia et al. (2024, LESS) for Adam in influence.
    """

    def __init__(self, gradients: PerExampleGradients) -> None:
        self._gradients = gradients
        self._scales = adam_scales(gradients.model.model)
        require(
            isinstance(gradients.projection, IdentityProjection),
            "`preconditioner` needs gradients without a projection, of which it multiplies every entry.",
            {"projection": gradients.projection.describe()},
        )
        self._blocks: tuple[tf.Tensor, ...] | None = None

    def __call__(self, vectors: Blocks) -> Blocks:
        """Return D times every vector, as matrices (n, p_k)."""
        pairs = zip(vectors, self._diagonal, strict=True)
        return tuple(blocks.to_dense((block,)) * diagonal for block, diagonal in pairs)

    def squared_norms(self, vectors: Blocks) -> tf.Tensor:
        """Return <v, D v> of every vector, shape (n,); outer products are never multiplied out."""
        # The square of an outer product is that of its factors.
        squares = tf.nest.map_structure(tf.square, vectors)
        return blocks.inner_products(self._diagonal, squares)[0]

    def describe(self) -> str:
        """Return a checksum of the matrix, which keys a store."""
        digest = hashlib.blake2b(digest_size=16)
        for diagonal in self._diagonal:
            digest.update(np.asarray(diagonal).tobytes())
        return f"adam {digest.hexdigest()}"

    @property
    def _diagonal(self) -> tuple[tf.Tensor, ...]:
        """The diagonal in the blocks of the gradients, each (1, p_k); after `prepare` of these."""
        if self._blocks is None:
            self._blocks = tuple(
                group.flatten([self._scale_of(variable)[tf.newaxis] for variable in group.variables])
                for group in self._gradients.groups
            )
        return self._blocks

    def _scale_of(self, variable: object) -> tf.Tensor:
        require(
            id(variable) in self._scales,
            "`preconditioner='adam'` needs averages of squared gradients of these weights, which were frozen when "
            "the model was compiled: choose other `weights`.",
            {"variable": getattr(variable, "path", variable)},
        )
        return self._scales[id(variable)]


def preconditioner_of(
    gradients: PerExampleGradients, chosen: Preconditioner | None
) -> AdamPreconditioner | None:
    """Return the preconditioner of that name, None for none.

    Raises:
        ValueError: an unknown name, or see `AdamPreconditioner`.
    """
    if chosen is None:
        return None
    check_choice("preconditioner", chosen, get_args(Preconditioner))
    return AdamPreconditioner(gradients)
