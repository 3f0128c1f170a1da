"""Figures of a model that is no classifier: predictions against labels, and the scores of its labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.figure import Figure

from deel_dualview import plots
from deel_dualview.report.findings import Finding
from deel_dualview.report.output_findings import PlottedExamples, PredictionErrors
from deel_dualview.report.overview import OutputsOverview, Overview

if TYPE_CHECKING:
    from deel_dualview.labels import LabelIssues, OutputLabelIssues

_NUM_POINTS = 200


def draw_outputs(
    findings: Sequence[Finding], issues: LabelIssues | OutputLabelIssues, overview: Overview
) -> dict[str, Figure]:
    """Return the figures by name; none of a classifier."""
    if not isinstance(overview, OutputsOverview):
        return {}
    figures = {"scores": _scores(cast("OutputLabelIssues", issues))}
    for finding in findings:
        if isinstance(finding, PredictionErrors):
            for output in dict.fromkeys(item.output for item in finding.plotted):
                parts = [item for item in finding.plotted if item.output == output]
                figures[f"output-{output}"] = _predictions(parts, overview)
    return figures


def _scores(issues: OutputLabelIssues) -> Figure:
    number = issues.scores.size
    ranks = np.unique(np.round(np.geomspace(1, number, _NUM_POINTS)).astype(np.int64))
    scores = np.sort(issues.scores, axis=None)[::-1][ranks - 1]
    unit = "times the usual distance" if issues.kind == "numbers" else "log-odds"
    return plots.plot_label_scores(
        ranks.tolist(), scores.tolist(), int(issues.flagged.sum()), label=f"Label score ({unit})"
    )


def _predictions(parts: Sequence[PlottedExamples], overview: OutputsOverview) -> Figure:
    words, output = overview.outputs, parts[0].output
    name = f"{words.names[output]} ({words.unit})" if words.unit else words.names[output]
    return plots.plot_predictions(
        {part.split: (part.labels, part.predictions, part.is_marked) for part in parts}, name=name
    )
