"""Label issues of independent labels: each label by itself, as two classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deel_dualview.labels.counting import LabelCount
from deel_dualview.labels.finding import Representations, find_label_issues
from deel_dualview.labels.issues import LabelIssues
from deel_dualview.labels.output_issues import OutputLabelIssues

LEAST_OF_A_KIND = 10
"""A count of a label needs so many training examples that have it, and so many that have not."""
_TOO_RARE = LabelCount(
    "cannot tell",
    reason=f"a count needs {LEAST_OF_A_KIND} training examples with the label, and {LEAST_OF_A_KIND} without",
)


def find_independent_issues(
    representations: Representations,
    labels: np.ndarray,
    test_labels: np.ndarray | None,
    *,
    output_names: Sequence[str],
    ids: np.ndarray | None = None,
    seed: int = 0,
) -> OutputLabelIssues:
    """Rank and count the entries of independent labels; see `label_issues`.

    Args:
        representations: of both sets.
        labels: zeros and ones of the training set, shape (n, c).
        test_labels: of the test set, shape (m, c), or None.
        output_names: shape (c,).
        ids: of the training examples.
        seed: of random rows, folds and resampling.
    """
    given = labels.astype(np.int64)
    tested = None if test_labels is None else test_labels.astype(np.int64)
    found = [
        _of_one(representations, own, None if tested is None else tested[:, output], seed)
        for output, own in enumerate(given.T)
    ]
    counts = [
        _TOO_RARE if np.bincount(own, minlength=2).min() < LEAST_OF_A_KIND else issues.count
        for own, issues in zip(given.T, found, strict=True)
    ]
    flagged = np.stack([issues.flagged for issues in found], axis=1)
    return OutputLabelIssues(
        kind="labels",
        given_labels=labels,
        suggested_labels=1 - labels,
        scores=np.stack([issues.scores for issues in found], axis=1),
        flagged=flagged & np.array([count.status == "counted" for count in counts]),
        counts=tuple(counts),
        heads=tuple(issues.heads for issues in found),
        output_names=tuple(output_names),
        ids=ids,
    )


def _of_one(
    representations: Representations, labels: np.ndarray, test_labels: np.ndarray | None, seed: int
) -> LabelIssues:
    # The model's own predictions are compared by the caller, in its own words.
    predictions = (labels, labels[:0] if test_labels is None else test_labels)
    return find_label_issues(
        representations, labels, test_labels, predictions, class_names=("no", "yes"), seed=seed
    )
