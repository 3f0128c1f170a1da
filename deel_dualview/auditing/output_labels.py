"""The finding about label issues of numbers or independent labels."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from deel_dualview.auditing.evidence import OutputEvidence, severity_of
from deel_dualview.auditing.labels import MANY_ERRORS, MOST_SHOWN, NUM_SHOWN, detection_curve
from deel_dualview.labels import OutputLabelIssues
from deel_dualview.report.findings import Severity
from deel_dualview.report.output_findings import SuspectLabel, SuspectLabels


def find_suspect_labels(
    evidence: OutputEvidence, issues: OutputLabelIssues, known: Sequence[int] | np.ndarray | None
) -> SuspectLabels:
    """Put label issues into words; `known` as in `find_label_errors`."""
    statuses = {count.status for count in issues.counts}
    counted = sum(count.estimate or 0 for count in issues.counts)
    least = max(NUM_SHOWN[status] for status in statuses)
    shown = issues.order[~np.isin(issues.order[:, 0], evidence.broken_train)]
    share = float("nan") if "cannot tell" in statuses else counted / issues.scores.size
    return SuspectLabels(
        severity=_severity(statuses, counted / issues.scores.size),
        title=_title(issues, counted),
        summary=_summary(issues),
        count=counted,
        share=share,
        counts=issues.counts,
        heads=issues.heads,
        issues=tuple(
            _suspect(evidence, issues, int(row), int(output))
            for row, output in shown[: min(max(least, round(1.5 * counted)), MOST_SHOWN)]
        ),
        detection=None
        if known is None or not len(known)
        else detection_curve(evidence, issues.scores.max(axis=1), np.asarray(known)),
    )


def _severity(statuses: Collection[str], share: float) -> Severity:
    found = severity_of(share, warn_from=MANY_ERRORS)
    if "cannot tell" in statuses:
        # Wrong labels that were counted are no less urgent because others cannot be.
        return Severity.ACT if found is Severity.ACT else Severity.CANNOT_TELL
    return Severity.KNOW if found is Severity.FINE else found


def _title(issues: OutputLabelIssues, counted: int) -> str:
    if issues.kind == "numbers":
        return "Training labels are ranked by how far off they look; how many are wrong is unknown"
    untold = sum(count.status == "cannot tell" for count in issues.counts)
    unknown = f"unknown of {untold:,} of {len(issues.counts):,} labels"
    if counted:
        verb = "entry is" if counted == 1 else "entries are"
        # Sums of bounds hold whatever the errors of the counts have in common.
        low, high = (sum(getattr(count, end) or 0 for count in issues.counts) for end in ("low", "high"))
        more = f"; how many is {unknown}" if untold else ""
        return f"About {counted:,} training {verb} wrong, perhaps more ({low:,} to {high:,}){more}"
    if untold:
        return f"Cannot tell how many training labels are wrong: {unknown}"
    return "Too few wrong training labels to count, perhaps none"


def _summary(issues: OutputLabelIssues) -> str:
    num_examples, num_outputs = issues.scores.shape
    if issues.kind == "numbers":
        return (
            f"This is no all-clear. {num_examples * num_outputs:,} labels are compared with what regressions predict "
            "that have not seen them, in units of how far labels of such examples usually are from that. Read from "
            "the top, and stop where the labels are right: no count of wrong numbers has been validated."
        )
    return (
        f"Of {num_examples:,} training examples every label by itself, scored by classifiers that have not seen it. As "
        "many as are counted are flagged. Test labels are taken as right."
    )


def _suspect(evidence: OutputEvidence, issues: OutputLabelIssues, row: int, output: int) -> SuspectLabel:
    return SuspectLabel(
        example=evidence.reference("train", row),
        output=output,
        given_label=float(issues.given_labels[row, output]),
        suggested_label=float(issues.suggested_labels[row, output]),
        score=float(issues.scores[row, output]),
        self_influence=float(evidence.self_influence[row]),
        flagged=bool(issues.flagged[row, output]),
    )
