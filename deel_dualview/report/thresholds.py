"""Thresholds on an audit's rates, for use in continuous integration (`--fail-on label-errors=0.02`)."""

from __future__ import annotations

from collections.abc import Mapping

RATES = {
    "label-errors": "share of training labels that the surrogate (or without one the model) contradicts",
    "wrong-predictions": "share of test predictions that differ from the label",
    "leaks": "share of test examples that are, or almost are, in the training set",
    "duplicates-conflicting": "share of training examples with a duplicate of another label",
    "unfaithful": "share of test predictions on which the surrogate differs from the model",
}
"""Every rate that a threshold can name, with its meaning."""


def parse_threshold(text: str) -> tuple[str, float]:
    """Read `"label-errors=0.02"` or `"label-errors=2%"` as ("label-errors", 0.02).

    Raises:
        ValueError: no rate has that name, or the limit is not a number from 0 to 1.
    """
    name, equals, limit = text.partition("=")
    name, limit = name.strip(), limit.strip()
    if not equals or name not in RATES:
        raise ValueError(
            f"A threshold is NAME=LIMIT, with a NAME among {', '.join(RATES)}; for instance "
            f"label-errors=0.02. Received: {text!r}."
        )
    try:
        value = float(limit.removesuffix("%")) / (100 if limit.endswith("%") else 1)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise ValueError(
            f"The limit of a threshold is a share from 0 to 1, or 0% to 100%. Received: {name}={limit!r}."
        )
    return name, value


def exceeded_thresholds(rates: Mapping[str, float], thresholds: Mapping[str, float]) -> list[str]:
    """Say, one sentence each, which rates are above their threshold.

    Args:
        rates: `AuditReport.rates`.
        thresholds: largest rate that is accepted, by name.

    Raises:
        ValueError: a threshold names a rate that this audit does not have (for instance wrong predictions of
            a test set without labels): to let it pass would hide that nothing was checked.
    """
    unknown = [name for name in thresholds if name not in rates]
    if unknown:
        raise ValueError(
            f"This audit has the rates {', '.join(rates)}, and a threshold was set on another one "
            f"(wrong-predictions needs test labels). Received: thresholds on {', '.join(unknown)}."
        )
    return [
        f"{name} is {rates[name]:.2%}, above the accepted {limit:.2%} "
        f"({RATES.get(name, 'a rate of this audit')})."
        for name, limit in thresholds.items()
        if rates[name] > limit
    ]
