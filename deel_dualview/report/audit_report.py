"""AuditReport: what `audit` returns, and how it leaves as files."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse

from deel_dualview._checks import require
from deel_dualview._summaries import to_html
from deel_dualview.plots.formatting import visible
from deel_dualview.plots.panels import COLOURS, Colours
from deel_dualview.report.broken import NotFiniteInputs
from deel_dualview.report.changes import Changes
from deel_dualview.report.findings import Finding
from deel_dualview.report.maps import PairMaps
from deel_dualview.report.overview import Overview
from deel_dualview.report.thresholds import RATES
from deel_dualview.report.writing import (
    check_output_directory,
    to_json,
    write_attributions,
    write_json,
    write_report,
    write_text,
)

if TYPE_CHECKING:
    import pandas as pd

    from deel_dualview.labels import LabelIssues, OutputLabelIssues

SCHEMA_VERSION = 2


@dataclass(frozen=True, repr=False)
class AuditReport:
    """The findings of an audit, and what is needed to write them down.

    Args:
        overview: what was audited, certificate, settings, time and memory.
        findings: in the order of the page, by subject; a surrogate that is not to be trusted comes first.
        attributions: influence values (m, n) of every training example on the explained logit of every test
            example; zero but for support vectors. A row sums to the surrogate's logit. Of any other method
            than DualView, and of DualView beyond the memory budget or 1 GiB, only the k strongest values on either
            side of every row.
        label_issues: of every training label: scores, suggestions, the count.
        arrays: what goes with the attributions into `attributions.npz`, by name.
        shown: contents of the examples that the page shows, by split and index: nests of arrays.
        relevance: heatmaps of the pairs that the page shows, by the index of the test and of the training example.
        input_names: of columns, or words of tokens by their number; empty for neither.
        changes: what is different from an earlier audit, where one was given.
        holds_all_values: whether the attributions are all that are not zero.
    """

    overview: Overview
    findings: list[Finding]
    attributions: scipy.sparse.csr_array
    label_issues: LabelIssues | OutputLabelIssues
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    shown: Mapping[tuple[str, int], Any] = field(default_factory=dict)
    relevance: Mapping[tuple[int, int], PairMaps] = field(default_factory=dict)
    input_names: Sequence[str] = ()
    changes: Changes | None = None
    holds_all_values: bool = True

    @property
    def rates(self) -> dict[str, float | None]:
        """Share of each kind of problem, by the names that `--fail-on` takes; None where it is unknown."""
        found = {
            finding.name: None if math.isnan(finding.share) else finding.share
            for finding in self.findings
            if finding.name in RATES
        }
        return {NotFiniteInputs.name: 0.0, **found}

    def finding(self, name: str) -> Finding:
        """Return the finding of that name, such as `"label-errors"`.

        Raises:
            KeyError: this audit has no such finding.
        """
        for finding in self.findings:
            if finding.name == name:
                return finding
        names = ", ".join(finding.name for finding in self.findings)
        raise KeyError(f"This audit has the findings {names}. Received: name={name!r}.")

    def to_frames(self) -> dict[str, pd.DataFrame]:
        """Return what each finding lists as a DataFrame, by the finding's name; pandas is imported here.

        `"label-errors"` has every training label; the others have the examples, pairs, classes, groups or
        problems that the page shows.
        Findings that list nothing are left out.
        """
        frames = {finding.name: finding.to_frame(self.overview.class_names) for finding in self.findings}
        frames["label-errors"] = self.label_issues.to_frame()
        return {name: frame for name, frame in frames.items() if len(frame)}

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the attributions and the examples' contents, as JSON holds it."""
        return {
            "schema_version": SCHEMA_VERSION,
            "overview": to_json(self.overview),
            "rates": to_json(self.rates),
            "changes": None if self.changes is None else [item._asdict() for item in self.changes.items],
            "findings": [{"name": finding.name} | to_json(finding) for finding in self.findings],
        }

    def to_html(
        self,
        directory: str | os.PathLike[str],
        overwrite: bool = False,
        *,
        colours: Colours = "orange-blue",
        title: str | None = None,
    ) -> pathlib.Path:
        """Write page, `audit.json`, `label_issues.csv` and `attributions.npz` into a new directory, all or none.

        `index.html` needs no other file and no network. `label_issues.csv` has one row for each training label, the
        likeliest wrong one first. `attributions.npz` is read by
        `scipy.sparse.load_npz` as the values (m, n), and by `numpy.load` with `test_predictions`,
        `test_labels`, `surrogate_logits` (of DualView), `train_labels` and ids beside them (`train_ids`; of ids
        that differ much in length, or end in a zero byte, `train_ids_bytes` on end and `train_ids_lengths`).

        Args:
            directory: created, parents included.
            overwrite: replace an earlier report; a directory with any other file in it is never touched.
            colours: of positive and negative relevance; `"orange-purple"` for readers of every colour vision.
            title: what the page is called; by the name of the model where there is none.

        Returns:
            The path of `index.html`.

        Raises:
            FileExistsError: the directory exists and `overwrite` is off, or it is not an earlier report.
            NotADirectoryError: a file has that name.
            ValueError: unknown colours.
        """
        from deel_dualview.report.html import render_page

        require(colours in COLOURS, f"`colours` must be one of {COLOURS}.", {"colours": colours})
        path = check_output_directory(directory, overwrite=overwrite)
        page = render_page(self, colours, title=title)
        write_report(
            path,
            {
                "index.html": lambda file: write_text(file, page),
                "audit.json": lambda file: write_json(file, self.to_dict()),
                "label_issues.csv": self.label_issues.to_csv,
                "attributions.npz": lambda file: write_attributions(file, self.attributions, self.arrays),
            },
        )
        return path / "index.html"

    def __repr__(self) -> str:
        lines = [f"  {finding.severity.value:12}{finding.title}" for finding in self.findings]
        return "\n".join([f"AuditReport of {visible(self.overview.model_name)}:", *lines])

    def _repr_html_(self) -> str:
        return to_html(
            f"AuditReport of {visible(self.overview.model_name)}",
            {
                f"{number}. {finding.severity.value}": finding.title
                for number, finding in enumerate(self.findings, 1)
            },
        )
