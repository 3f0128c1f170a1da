"""LabelIssues: training labels by how likely they are wrong, as arrays, tables and what other tools read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.special

from deel_dualview._checks import require
from deel_dualview.labels.counting import LabelCount
from deel_dualview.labels.tables import write_csv

if TYPE_CHECKING:
    import os

    import pandas as pd

MEMORISED = 3.0
"""Standard deviations by which training labels look easier than test labels, from which on the features have memorised
labels."""


class ClassPair(NamedTuple):
    """How many labels of a class are wrong, and should be another one.

    Attributes:
        given: the class that they have.
        suggested: the class that they should have.
        estimate: how many, by the count; None where nothing was counted.
        num_flagged: how many of them are flagged.
    """

    given: int
    suggested: int
    estimate: float | None
    num_flagged: int


class HeadWeight(NamedTuple):
    """A head, by what it is fitted to, and its weight in the score."""

    name: str
    weight: float


@dataclass(frozen=True, repr=False)
class LabelIssues:
    """Training labels by how likely they are wrong, and how many are.

    Attributes:
        given_labels: classes, shape (n,).
        suggested_labels: the likeliest other class, shape (n,).
        scores: log-odds of the suggested class against the given one, shape (n,): above 0 the heads prefer the former.
        flagged: the first `count.estimate` labels by score, shape (n,) bool; none where nothing was counted.
        count: how many labels are wrong, where that can be estimated.
        class_pairs: of what is counted, by decreasing number.
        training_accuracy: share of the training labels that the model predicts.
        test_accuracy: share of the test labels that it predicts, None without them.
        deviations_easier: how much easier the training labels look than the test labels to a head on the features, in
            standard deviations (None without test labels): from 3 on the features have memorised training labels.
        heads: what the scores are made of.
        ids: of the training examples, shape (n,), or None.
        class_names: shape (c,).
    """

    given_labels: np.ndarray
    suggested_labels: np.ndarray
    scores: np.ndarray
    flagged: np.ndarray
    count: LabelCount
    class_pairs: tuple[ClassPair, ...]
    training_accuracy: float
    test_accuracy: float | None
    deviations_easier: float | None
    heads: tuple[HeadWeight, ...]
    ids: np.ndarray | None
    class_names: tuple[str, ...]

    @cached_property
    def order(self) -> np.ndarray:
        """Positions of the training examples by decreasing score, shape (n,); ties by the lower position."""
        return np.argsort(-self.scores, kind="stable")

    @property
    def has_memorised(self) -> bool:
        """Whether the network has memorised labels, so that it cannot judge them itself."""
        return self.deviations_easier is not None and self.deviations_easier > MEMORISED

    def __repr__(self) -> str:
        number = self.count
        said = {
            "counted": f"about {number.estimate} wrong, perhaps more ({number.low} to {number.high})",
            "at most": f"at most {number.at_most} wrong, perhaps none",
            "cannot tell": f"cannot tell how many are wrong: {number.reason}",
        }[number.status]
        return f"LabelIssues of {len(self.scores)} labels: {said}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each training example, by decreasing score; pandas is imported here.

        Columns: `position`, `id` (where the data set has ids), `given_label`, `suggested_label` (names), `score`,
        `flagged`.
        """
        import pandas as pd

        return pd.DataFrame(self._columns())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `to_frame` as a CSV file, whole or not at all; what looks like a formula gets an apostrophe."""
        write_csv(Path(path), self._columns())

    def to_cleanlab(self) -> pd.DataFrame:
        """Return what cleanlab's `Datalab.get_issues("label")` returns, in the order of the dataset.

        Columns: `is_label_issue` (`flagged`), `label_score` (from 0 to 1, low for likely wrong labels: the probability
        of the given class beside the suggested one), `given_label`, `predicted_label` (names; the likelier of both).
        pandas is imported here.
        """
        import pandas as pd

        names = np.asarray(self.class_names)
        predicted = np.where(self.scores > 0, self.suggested_labels, self.given_labels)
        return pd.DataFrame(
            {
                "is_label_issue": self.flagged,
                "label_score": scipy.special.expit(-self.scores),
                "given_label": names[self.given_labels],
                "predicted_label": names[predicted],
            }
        )

    def to_fiftyone(self, filepaths: Sequence[str]) -> list[dict[str, Any]]:
        """Return one dict for each training example, in the order of the dataset, for `fiftyone.Sample.from_dict`.

        Fields: `filepath`, `tags` (`label issue` where flagged), `ground_truth` and `suggested` (classifications),
        `label_issue_score`, `position`, and `example_id` where the dataset has ids. All is JSON.

        Args:
            filepaths: of the images, shape (n,).

        Raises:
            ValueError: another number of paths.
        """
        require(
            len(filepaths) == len(self.scores),
            "`filepaths` must name the image of each training example.",
            {"len(filepaths)": len(filepaths), "training examples": len(self.scores)},
        )
        samples: list[dict[str, Any]] = []
        for position, path in enumerate(filepaths):
            given, suggested = (
                {"_cls": "Classification", "label": self.class_names[label]}
                for label in (self.given_labels[position], self.suggested_labels[position])
            )
            samples.append(
                {
                    "filepath": str(path),
                    "tags": ["label issue"] if self.flagged[position] else [],
                    "ground_truth": given,
                    "suggested": suggested,
                    "label_issue_score": float(self.scores[position]),
                    "position": position,
                }
            )
            if self.ids is not None:
                samples[-1]["example_id"] = _plain(self.ids[position])
        return samples

    def _columns(self) -> dict[str, np.ndarray]:
        names = np.asarray(self.class_names)
        columns = {
            "position": np.arange(len(self.scores)),
            "id": None if self.ids is None else as_text(self.ids),
            "given_label": names[self.given_labels],
            "suggested_label": names[self.suggested_labels],
            "score": self.scores,
            "flagged": self.flagged,
        }
        return {name: column[self.order] for name, column in columns.items() if column is not None}


def as_text(ids: np.ndarray) -> np.ndarray:
    """Return ids that are bytes as texts, others as they are."""
    if ids.dtype.kind not in "SO":
        return ids
    return np.array([_plain(value) if isinstance(value, bytes) else value for value in ids.tolist()])


def _plain(value: Any) -> Any:
    """Return an id as JSON has it."""
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else np.asarray(value).item()
