"""Whether the logits that attributions add up to are those of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import matthews_corrcoef

from deel_dualview._checks import require
from deel_dualview.calculators import fidelity
from deel_dualview.metrics.base import MeanMetric, checked_vector, row_blocks, shape_of, to_reals


class SurrogateFidelity(MeanMetric):
    """Share of test examples of which a surrogate, or a retrained head, predicts what the model predicts.

    1 for the model itself; predictions drawn at random with the model's frequencies p score sum p^2.

    Source: DualXDA, section 5.
    """

    def reset_state(self) -> None:
        """Forget all examples."""
        super().reset_state()
        self._logits: list[tuple[np.ndarray, np.ndarray]] = []

    def update_state(self, surrogate_logits: Any, model_logits: Any) -> None:
        """Compare the logits of a batch of test examples, both of shape (m, c).

        Raises:
            ValueError: shapes do not fit, or logits are not finite.
        """
        ours, theirs = (_checked_logits(logits) for logits in (surrogate_logits, model_logits))
        require(
            ours.shape == theirs.shape,
            "Both logits must be of the same examples and classes.",
            {"shapes": (ours.shape, theirs.shape)},
        )
        num_classes = self._logits[0][0].shape[1] if self._logits else ours.shape[1]
        require(
            ours.shape[1] == num_classes,
            "Logits must be of the same classes in every batch.",
            {"num_classes": ours.shape[1], "before": num_classes},
        )
        self._logits.append((ours, theirs))
        self._append(ours.argmax(axis=1) == theirs.argmax(axis=1))

    def _all_logits(self) -> tuple[np.ndarray, np.ndarray]:
        require(len(self.scores) > 0, "SurrogateFidelity has seen no example: call `update_state`.", {})
        ours, theirs = zip(*self._logits, strict=True)
        return np.concatenate(ours), np.concatenate(theirs)

    @property
    def matthews_correlation(self) -> float:
        """Multi-class Matthews correlation of the two predictions."""
        ours, theirs = self._all_logits()
        return float(matthews_corrcoef(theirs.argmax(axis=1), ours.argmax(axis=1)))

    @property
    def logit_cosine(self) -> float:
        """Mean cosine of the two logit vectors of an example, each less its mean over the classes."""
        ours, theirs = map(fidelity.centred, self._all_logits())
        return float(fidelity.cosines(ours, theirs).mean())

    @property
    def kendall_tau(self) -> float:
        """Mean rank correlation of the two logit vectors of an example (of at most 1,000, evenly spaced)."""
        return fidelity.mean_kendall_tau(*self._all_logits())


class Completeness(MeanMetric):
    """Mean difference between the explained logit and the sum of its attributions, in units of its deviation.

    0 where the attributions of an example add up to its logit; about 1 where their sums are the mean logit of
    all. The deviation is the root of the mean square around the mean; where all logits are equal, their size.

    Source: Sundararajan et al. (2017), completeness; DualView, section 4.
    """

    def reset_state(self) -> None:
        """Forget all examples."""
        super().reset_state()
        self._num_train: int | None = None
        self._sums: list[np.ndarray] = []
        self._explained: list[np.ndarray] = []

    def update_state(self, influence_values: Any, explained_logits: Any) -> None:
        """Add up the values of a batch of test examples.

        Args:
            influence_values: shape (m, n).
            explained_logits: logit of each example's explained class, less what is no training example's
                (a bias), shape (m,).

        Raises:
            ValueError: shapes do not fit, values are not finite, or of another training set than before.
        """
        num_test, num_train = shape_of(influence_values)
        require(
            self._num_train in (None, num_train),
            "Influence values must be of the same training set in every batch.",
            {"num_train": num_train, "before": self._num_train},
        )
        logits = to_reals(
            "`explained_logits`", checked_vector("explained_logits", explained_logits, num_test)
        )
        require(bool(np.isfinite(logits).all()), "`explained_logits` must be finite.", {})
        for rows, block in row_blocks(influence_values):
            self._sums.append(block.sum(axis=1))
            self._explained.append(logits[rows])
        self._num_train = num_train

    @property
    def scores(self) -> np.ndarray:
        """The error of every test example so far, shape (m,)."""
        sums, logits = (np.concatenate([np.empty(0), *parts]) for parts in (self._sums, self._explained))
        if not len(logits):
            return logits
        scale = logits.std() or np.abs(logits).max() or 1.0
        return np.abs(sums - logits) / scale


def _checked_logits(logits: Any) -> np.ndarray:
    array = to_reals("Logits", logits)
    require(
        array.ndim == 2 and array.shape[1] >= 2,
        "Logits must be a matrix (num_test, num_classes) of two classes or more; those of a model with one output z "
        "are (-z / 2, z / 2).",
        {"shape": array.shape},
    )
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    require(len(bad) == 0, "Logits must be finite.", {"rows": bad.tolist()})
    return array
