"""Labels that a person has looked at and found right: the next audit does not suspect them again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deel_dualview import data
from deel_dualview._checks import describe, require
from deel_dualview.data.hashing import to_bytes
from deel_dualview.labels.correction_files import Review, read_reviews
from deel_dualview.labels.corrections import class_of

if TYPE_CHECKING:
    import pandas as pd


class ReviewedLabels(NamedTuple):
    """What was decided about labels of a training set, as it was before the corrections or as it is after them."""

    reviews: tuple[Review, ...]

    @classmethod
    def read(cls, reviewed: str | os.PathLike[str] | pd.DataFrame) -> ReviewedLabels:
        """Read the file that the page of an earlier audit exports, or a DataFrame with its columns.

        Raises:
            ValueError: as `read_corrections`, or labels of a model that is no classifier.
        """
        reviews = tuple(read_reviews(reviewed, "`reviewed`"))
        outputs = sorted({review.output for review in reviews if review.output is not None})
        require(
            not outputs,
            "`reviewed` is for the labels of a classifier, and these are of several outputs.",
            {"outputs": outputs[:3]},
        )
        return cls(reviews)

    def right_positions(
        self, labels: np.ndarray, ids: np.ndarray | None, class_names: Sequence[str] | None
    ) -> np.ndarray:
        """Return the positions of the labels that were found right.

        Dropped examples move those after them. Whether the corrections are applied is seen from the labels.

        Args:
            labels: classes of the training set now, shape (n,).
            ids: of its examples, shape (n,), or None.
            class_names: of the audit; classes by number where None.

        Raises:
            ChangedError: a label or an id is not that of the training set, whether the corrections are applied or not.
        """
        dropped = sorted(review.position for review in self.reviews if review.verdict == "drop")
        kept = [review for review in self.reviews if review.verdict != "drop"]
        candidates = []
        for is_applied in (True, False):
            matches = []
            for review in kept:
                at = review.position - (int(np.searchsorted(dropped, review.position)) if is_applied else 0)
                is_new = is_applied and review.verdict == "wrong"
                name = review.label if is_new else review.given_label
                expected = None if name is None else class_of(name, class_names)
                is_same = at < len(labels) and expected in (None, int(labels[at]))
                if is_same and ids is not None and review.id is not None:
                    is_same = to_bytes(ids[at]) == to_bytes(review.id)
                matches.append((review, at, is_same))
            differing = [
                review for review, _, is_same in matches if review.verdict == "right" and not is_same
            ]
            candidates.append((len(differing), -sum(is_same for *_, is_same in matches), matches, differing))
        _, _, matches, differing = min(candidates, key=lambda candidate: candidate[:2])
        if differing:
            raise data.ChangedError(
                describe(
                    "`reviewed` has labels that are right, but `train` has others at these positions, or examples of "
                    "other ids: it is of another set, or of another order of its examples.",
                    {
                        "positions": [review.position for review in differing[:3]],
                        "labels reviewed": [review.given_label for review in differing[:3]],
                    },
                )
            )
        return np.array([at for review, at, _ in matches if review.verdict == "right"], np.int64)
