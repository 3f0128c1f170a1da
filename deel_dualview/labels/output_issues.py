"""OutputLabelIssues: labels of regressions and of independent labels by how likely they are wrong."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from deel_dualview.labels.counting import LabelCount
from deel_dualview.labels.issues import HeadWeight, as_text
from deel_dualview.labels.tables import write_csv

if TYPE_CHECKING:
    import os

    import pandas as pd

OutputKind = Literal["numbers", "labels"]

NUMBERS_ARE_RANKED = LabelCount(
    "cannot tell", reason="labels of a regression are ranked: no count of wrong ones has been validated"
)


@dataclass(frozen=True, repr=False)
class OutputLabelIssues:
    """Labels of a model with c numbers, or c independent labels, by how likely they are wrong: an entry for each.

    Attributes:
        kind: `"numbers"` of a regression, or `"labels"` that hold or do not.
        given_labels: shape (n, c), float32.
        suggested_labels: of numbers what the heads predict, of independent labels the other one, shape (n, c).
        scores: shape (n, c). Of numbers the distance of the given from the suggested one, in units of how far labels of
            such examples usually are; of independent labels the log-odds of the other one.
        flagged: the first labels of an output by score, as many as were counted, shape (n, c) bool.
        counts: how many labels of each output are wrong, where that can be estimated: numbers are ranked only.
        heads: what the scores of each output are made of.
        output_names: shape (c,).
        ids: of the training examples, shape (n,), or None.
    """

    kind: OutputKind
    given_labels: np.ndarray
    suggested_labels: np.ndarray
    scores: np.ndarray
    flagged: np.ndarray
    counts: tuple[LabelCount, ...]
    heads: tuple[tuple[HeadWeight, ...], ...]
    output_names: tuple[str, ...]
    ids: np.ndarray | None

    @cached_property
    def order(self) -> np.ndarray:
        """Position and output of every label by decreasing score, shape (n c, 2); ties by position, then output."""
        entries = np.argsort(-self.scores, axis=None, kind="stable")
        return np.stack(np.unravel_index(entries, self.scores.shape), axis=1)

    def __repr__(self) -> str:
        num_examples, num_outputs = self.scores.shape
        said = "; ".join(
            f"{name!r} {_in_words(count)}" for name, count in zip(self.output_names, self.counts, strict=True)
        )
        if self.kind == "numbers":
            said = "ranked, not counted"
        return f"OutputLabelIssues of {num_examples} x {num_outputs} {self.kind}: {said}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each label of each training example, by decreasing score; pandas is imported here.

        Columns: `position`, `id` (where the data set has ids), `output` (name), `given_label`, `suggested_label`,
        `score`, `flagged`.
        """
        import pandas as pd

        return pd.DataFrame(self._columns())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write `to_frame` as a CSV file, whole or not at all; what looks like a formula gets an apostrophe."""
        write_csv(Path(path), self._columns())

    def _columns(self) -> dict[str, np.ndarray]:
        rows, outputs = self.order.T
        as_labels = np.float64 if self.kind == "numbers" else np.int64
        columns = {
            "position": rows,
            "id": None if self.ids is None else as_text(self.ids)[rows],
            "output": np.asarray(self.output_names)[outputs],
            "given_label": self.given_labels[rows, outputs].astype(as_labels),
            "suggested_label": self.suggested_labels[rows, outputs].astype(as_labels),
            "score": self.scores[rows, outputs],
            "flagged": self.flagged[rows, outputs],
        }
        return {name: column for name, column in columns.items() if column is not None}


def _in_words(count: LabelCount) -> str:
    return {
        "counted": f"about {count.estimate} wrong ({count.low} to {count.high})",
        "at most": f"at most {count.at_most} wrong",
        "cannot tell": "cannot tell",
    }[count.status]
