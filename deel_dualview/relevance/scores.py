"""Back ends that only call the model: relevance of an input from the influence of the pair as its function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from deel_dualview._checks import require
from deel_dualview.models import InfluenceModel
from deel_dualview.models.inputs import Structure, spread, structure_of, used
from deel_dualview.relevance.base import BackEnd, Explainer, Side
from deel_dualview.relevance.layerwise import feature_function, looks_up
from deel_dualview.typing import Inputs

_ROWS_AT_ONCE = 256

Score: TypeAlias = Callable[[tf.Tensor, np.ndarray], tf.Tensor]
"""From inputs (n, ...) and the pair that each stands in (n,) to the influence of these pairs (n,)."""


class ScoreBackEnd(BackEnd):
    """A back end for models with one tensor as input, which may be subclassed.

    Pairs are explained in blocks, so that memory does not grow with their number.
    """

    @property
    def rows_per_pair(self) -> int:
        """How many inputs are evaluated at once for one pair."""
        return 1

    @abstractmethod
    def of_pairs(self, inputs: tf.Tensor, rows: np.ndarray, score: Score) -> tf.Tensor:
        """Return the relevance of the inputs of some pairs.

        Args:
            inputs: of this side, one for each pair, shape (p, ...), float32.
            rows: the pairs, shape (p,).
            score: their influence as a function of the inputs.

        Returns:
            Shape (p, ...), float32.
        """

    def check(self, model: InfluenceModel) -> None:
        """Refuse models that this back end cannot explain, and missing packages."""

    def prepare(self, model: InfluenceModel) -> Explainer:
        self.check(model)
        features_of = feature_function(model)
        structure = structure_of(model.model)

        def explain(side: Side) -> Inputs:
            inputs, rows = single_input(structure, side.inputs), np.arange(side.start.shape[0])
            at_once = _ROWS_AT_ONCE // self.rows_per_pair
            return spread(
                structure,
                side.inputs,
                [of_rows(features_of, side, inputs, rows, self.of_pairs, at_once=at_once)],
            )

        return explain


def of_rows(
    features_of: Callable[[tf.Tensor], tf.Tensor],
    side: Side,
    inputs: tf.Tensor,
    rows: np.ndarray,
    of_pairs: Callable[[tf.Tensor, np.ndarray, Score], tf.Tensor],
    *,
    at_once: int = _ROWS_AT_ONCE,
) -> tf.Tensor:
    """Return what is found of the inputs of some pairs of a side, shape (n, ...), in blocks.

    Args:
        features_of: from inputs to features.
        side: of the pairs.
        inputs: of its examples, (b, ...), each of which stands in as many pairs in a row.
        rows: which pairs, shape (n,).
        of_pairs: from inputs (p, ...), their pairs (p,) and the influence as their function to what is found.
        at_once: at most how many pairs make a block.
    """
    repeats = side.start.shape[0] // max(1, inputs.shape[0])

    def score(changed: tf.Tensor, own: np.ndarray) -> tf.Tensor:
        return side.influence.of_features(features_of(changed), own)

    step = max(1, at_once)
    blocks = [rows[start : start + step] for start in range(0, len(rows), step)]
    return tf.concat([of_pairs(tf.gather(inputs, own // repeats), own, score) for own in blocks], axis=0)


def single_input(structure: Structure, inputs: Inputs) -> tf.Tensor:
    """Return the one tensor that a model reads, float32.

    Args:
        structure: of the model's inputs.
        inputs: as a dataset yields them.

    Raises:
        ValueError: there are several.
    """
    tensors = used(structure, inputs)
    require(
        len(tensors) == 1,
        "This rule explains models with one input tensor; take a rule of layer-wise relevance propagation, for "
        "instance rule='epsilon-plus'.",
        {"inputs": len(tensors)},
    )
    return tf.cast(tensors[0], tf.float32)


def check_differentiable(model: InfluenceModel) -> None:
    """Refuse a model of which it is known that it looks its inputs up by integers, such as tokens.

    Raises:
        ValueError: it does.
    """
    require(not looks_up(model), NOT_DIFFERENTIABLE, {"model": model.model.name})


NOT_DIFFERENTIABLE = (
    "This rule needs the gradient of the influence with respect to the inputs, and there is none: they are integers, "
    "for instance tokens, or go through an operation without gradient. Take a rule of layer-wise relevance "
    "propagation, for instance rule='epsilon-plus', or rule='occlusion' for images."
)
