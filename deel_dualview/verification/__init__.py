"""Counterfactuals that are checked: what the removal of training examples changes, predicted and by training again."""

from deel_dualview.verification.checking import verify
from deel_dualview.verification.counterfactuals import Flip, WhatIf, smallest_flip, what_if
from deel_dualview.verification.diagnosis import Diagnosis, diagnose
from deel_dualview.verification.results import Correlation, Removal, Share, State, Verification

__all__ = [
    "Correlation",
    "Diagnosis",
    "Flip",
    "Removal",
    "Share",
    "State",
    "Verification",
    "WhatIf",
    "diagnose",
    "smallest_flip",
    "verify",
    "what_if",
]


def __dir__() -> list[str]:
    return sorted(__all__)
