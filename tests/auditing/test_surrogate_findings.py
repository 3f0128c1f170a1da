"""Findings about the surrogate, from numbers of its fidelity."""

import pytest

from deel_dualview.auditing.surrogate import find_faithfulness
from deel_dualview.calculators.fidelity import SurrogateFidelity
from deel_dualview.report import Severity


def fidelity(num_examples, agreement):
    return SurrogateFidelity(
        num_examples=num_examples,
        agreement=agreement,
        matthews_correlation=1.0,
        logit_cosine=1.0,
        kendall_tau=1.0,
        weight_cosine=None,
        completeness_error=0.0,
    )


@pytest.mark.parametrize(
    ("num_examples", "agreement", "severity"),
    [
        (1, 1.0, Severity.CANNOT_TELL),
        (19, 1.0, Severity.CANNOT_TELL),
        (20, 1.0, Severity.FINE),
        (100, 0.96, Severity.LOOK),
        (10, 0.5, Severity.ACT),
        (100, 0.5, Severity.ACT),
    ],
)
def test_agreement_on_a_handful_of_test_examples_is_not_fine(num_examples, agreement, severity):
    finding = find_faithfulness(fidelity(num_examples, agreement))
    assert finding.severity is severity
    assert ("Cannot tell" in finding.title) == (severity is Severity.CANNOT_TELL)
