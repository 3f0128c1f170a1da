"""Thresholds on an audit's rates, for use in continuous integration (`--fail-on label-errors=0.02`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

RATES = {
    "label-errors": "estimated share of training labels that are wrong",
    "wrong-predictions": "share of test predictions that differ from the label",
    "leaks": "share of test examples that are in the training set, or look like one there",
    "duplicates-conflicting": "share of training examples with a duplicate of another label",
    "unfaithful": "share of test predictions on which the surrogate differs from the model",
    "not-finite": "share of training and test examples with NaN or infinity in their inputs",
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


def parse_thresholds(texts: Iterable[str]) -> dict[str, float]:
    """Read several thresholds, as of `parse_threshold`, each name once.

    Raises:
        ValueError: a bad threshold, or two of one name: which of them holds, nobody can know.
    """
    thresholds: dict[str, float] = {}
    for text in texts:
        name, limit = parse_threshold(text)
        if name in thresholds:
            raise ValueError(
                f"One threshold for each name: there are two for {name}. Received: "
                f"{name}={thresholds[name]:g} and {name}={limit:g}."
            )
        thresholds[name] = limit
    return thresholds


def exceeded_thresholds(
    rates: Mapping[str, float | None], thresholds: Mapping[str, float], *, allow_cannot_tell: bool = False
) -> list[str]:
    """Say, one sentence each, which rates are above their threshold.

    Args:
        rates: `AuditReport.rates`.
        thresholds: largest rate that is accepted, by name.
        allow_cannot_tell: whether a rate that the audit could not tell (None) is accepted.

    Raises:
        ValueError: a threshold names a rate that this audit does not have (for instance wrong predictions of
            a test set without labels), or a rate or a limit is no share from 0 to 1 (not a number, for instance): to
            let it pass would hide that nothing was checked.
    """
    unknown = [name for name in thresholds if name not in rates]
    if unknown:
        raise ValueError(
            f"This audit has the rates {', '.join(rates)}, and a threshold was set on another one "
            f"(wrong-predictions needs test labels). Received: thresholds on {', '.join(unknown)}."
        )
    sentences = []
    for name, limit in thresholds.items():
        rate = rates[name]
        if rate is None:
            if not allow_cannot_tell:
                sentences.append(
                    f"{name} is unknown, so that nothing shows it to be within the accepted {limit:.2%}."
                )
            continue
        if not 0 <= rate <= 1 or not 0 <= limit <= 1:
            raise ValueError(
                f"A threshold compares shares from 0 to 1; {name} could not be compared. Received: "
                f"rate={rate}, limit={limit}."
            )
        if rate > limit:
            sentences.append(
                f"{name} is {rate:.2%}, above the accepted {limit:.2%} ({RATES.get(name, 'a rate of this audit')})."
            )
    return sentences
