"""What every way from the influence of a pair to the parts of its inputs has in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import tensorflow as tf

from deel_dualview.models import InfluenceModel
from deel_dualview.relevance.pair_influence import PairInfluence
from deel_dualview.typing import Inputs


class Side(NamedTuple):
    """The training or the evaluated examples of pairs, the other side of which is fixed.

    Attributes:
        inputs: of b examples, each of which stands in r pairs in a row.
        start: what every penultimate feature contributes to the influence of a pair, shape (b r, d).
        influence: of the pairs as a function of this side's features.
    """

    inputs: Inputs
    start: tf.Tensor
    influence: PairInfluence


Explainer: TypeAlias = Callable[[Side], Inputs]
"""From a side to the relevance of its inputs: in their structure, each tensor (b r, ...), float32."""


class BackEnd(ABC):
    """A way to trace the influence of a pair back to the inputs of one side; frozen settings.

    Relevance is in the unit of the influence value, positive where it supports the explained output.
    """

    @abstractmethod
    def prepare(self, model: InfluenceModel) -> Explainer:
        """Return the explainer of a model's inputs.

        Args:
            model: which the influence is of.

        Raises:
            ValueError: the model cannot be explained in this way.
            ImportError: a package is missing; the message tells how to install it.
        """
