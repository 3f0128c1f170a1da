"""Weak groups: test examples that a model is wrong on more often than on others of the same classes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from deel_dualview.auditing.evidence import Evidence, guesses
from deel_dualview.auditing.grouping import (
    LEAST_EXAMPLES,
    LEAST_OF_CLASS,
    Group,
    Tested,
    Values,
    beyond_chance,
    by_features,
    by_proponents,
    by_values,
    without_overlaps,
)
from deel_dualview.linalg.rows import Rows
from deel_dualview.report.findings import Severity
from deel_dualview.report.group_findings import GroupMember, WeakGroup, WeakGroups

FALSE_ALARMS = 0.05
"""The chance that any group is reported where errors fall on the examples of a class at random. It is shared equally by
the kinds of groups that there are, so that many groups of one kind do not hide a weak one of another."""
_TIMES_WORSE, _POINTS_WORSE = 1.5, 0.1
"""A difference that matters, for in a large test set small ones are beyond chance, too: half as many errors again as
expected, or an accuracy ten points below."""
_FAR_WORSE, _MANY_ERRORS = 0.2, 10
"""A group of a column's or given values is worth a look from 20 points below the expected accuracy and 10 errors more
than expected on: natural difficult ranges of clean tables reach less. Groups by features or proponents are hard
examples of nearly every trained network, by as much as any fault would make (see docs/measurements/data_checks.md)."""
NUM_GROUPS, NUM_SHOWN = 6, 6


_NATURAL = "Most trained networks have such groups on data without a fault: examples near another class, or rare ones."
_KINDS = (
    "examples of a class that are alike to the model",
    "predictions with a common proponent",
    "values of a column",
    "the given groups",
)


@dataclass(frozen=True)
class _Tested(Tested):
    num_right: int
    expected: float
    least_chance: float


def find_weak_groups(
    evidence: Evidence, features: tuple[Rows, np.ndarray], *, columns: Values, given: Values
) -> Iterator[WeakGroups]:
    """Yield the finding about weak groups; none without test labels.

    A class that is weak as a whole makes no weak group: errors are compared with those of the same class, and
    predictions of a common proponent with predictions of the same class.

    Args:
        evidence: arrays of the audit.
        features: penultimate ones of the training set, shape (n, d), and of the test set, (m, d).
        columns: of the inputs.
        given: by the user.
    """
    if evidence.test_labels is None:
        return
    labels, predictions = evidence.test_labels, evidence.predictions
    of_kinds = [
        (by_features(evidence, *features), labels),
        (by_proponents(evidence), predictions),
        (by_values("column", columns), labels),
        (by_values("given", given), labels),
    ]
    tested = [_test(groups, strata, evidence) for groups, strata in of_kinds]
    num_kinds = sum(1 for found in tested if found)
    weak = [item for found in tested for item in beyond_chance(found, FALSE_ALARMS / max(num_kinds, 1))]
    weak = without_overlaps(sorted((item for item in weak if _matters(item)), key=lambda item: item.chance))
    num_examined = sum(map(len, tested))
    count = len(weak)
    can_tell = not guesses(evidence) and (
        any(item.least_chance <= FALSE_ALARMS / num_kinds / len(found) for found in tested for item in found)
        or _has_large_class_without_error(evidence)
    )
    inside = np.unique(np.concatenate([*(item.group.members for item in weak), np.empty(0, np.int64)]))
    yield WeakGroups(
        severity=(
            Severity.LOOK
            if any(map(_is_far_worse, weak))
            else Severity.KNOW
            if count
            else Severity.FINE
            if can_tell
            else Severity.CANNOT_TELL
        ),
        title=(
            f"The model is weak in {count:,} {'group' if count == 1 else 'groups'} of test examples"
            if count
            else "No group of test examples is predicted worse than the rest of its class, beyond chance"
            if can_tell
            else "Cannot tell whether the model is weak in a group: "
            + (
                "it is no better than guessing on the test set"
                if guesses(evidence)
                else "too few test examples"
                if num_examined
                else "no group of test examples is large enough"
            )
        ),
        summary=_summary([len(found) for found in tested], has_given=bool(given))
        + (" " + _NATURAL if count and not any(map(_is_far_worse, weak)) else ""),
        count=count,
        share=len(inside) / evidence.num_test,
        num_examined=num_examined,
        groups=tuple(_weak_group(item, evidence) for item in weak[:NUM_GROUPS]),
    )


def _summary(numbers: Sequence[int], *, has_given: bool) -> str:
    """Describe which groups were tested, from the numbers of the four kinds."""
    total = sum(numbers)
    kinds = [kind for kind, number in zip(_KINDS, numbers, strict=True) if number]
    sentences = [f"{total:,} groups were tested: {', '.join(kinds)}." if total else "No group was tested."]
    if has_given and not numbers[-1]:
        sentences.append("None of the given groups could be tested.")
    if not total or (has_given and not numbers[-1]):
        sentences.append(
            f"A group needs {LEAST_EXAMPLES} test examples, and others of the same classes to compare them with."
        )
    if total:
        sentences.append("Errors are compared with those on other examples of the same classes.")
    return " ".join(sentences)


def _has_large_class_without_error(evidence: Evidence) -> bool:
    """Return whether a class that is large enough for groups has none only because it is always predicted right."""
    labels = np.asarray(evidence.test_labels)
    sizes, num_right = (
        np.bincount(part, minlength=evidence.num_classes)
        for part in (labels, labels[evidence.predictions == labels])
    )
    return bool(((sizes >= LEAST_OF_CLASS) & (sizes == num_right)).any())


def _test(groups: Iterable[Group], strata: np.ndarray, evidence: Evidence) -> list[_Tested]:
    """Return the groups that are large enough with their errors, and the chance of so many in their strata.

    The exact test of stratified tables: given the number of errors in each class, those in a group are a sum of
    hypergeometric numbers.

    Source: Mantel and Haenszel (1959); exact as in Agresti, Categorical Data Analysis (2013), section 7.3.5.
    """
    is_broken = np.isin(np.arange(evidence.num_test), evidence.broken_test)
    is_wrong = (evidence.predictions != evidence.test_labels) & ~is_broken
    sizes = np.bincount(strata[~is_broken], minlength=evidence.num_classes)
    errors = np.bincount(strata[is_wrong], minlength=evidence.num_classes)
    found = []
    for group in groups:
        members = group.members[~is_broken[group.members]]
        drawn = np.bincount(strata[members], minlength=evidence.num_classes)
        if len(members) < LEAST_EXAMPLES or not (sizes > drawn).any():
            continue
        num_wrong = int(is_wrong[members].sum())
        probabilities = np.ones(1)
        for label in np.flatnonzero((drawn > 0) & (errors > 0)):
            own = _chances(int(sizes[label]), int(errors[label]), int(drawn[label]))
            probabilities = np.convolve(probabilities, own)
        expected = float((drawn * errors / np.maximum(sizes, 1)).sum()) / len(members)
        found.append(
            _Tested(
                dataclasses.replace(group, members=members),
                float(min(probabilities[num_wrong:].sum(), 1)),
                num_right=len(members) - num_wrong,
                expected=1 - expected,
                least_chance=float(probabilities[-1]),
            )
        )
    return found


@functools.lru_cache(maxsize=10_000)
def _chances(size: int, num_errors: int, num_drawn: int) -> np.ndarray:
    """Return the probabilities of 0, 1, ... errors among some examples of a class; many groups need the same ones."""
    possible = np.arange(min(num_drawn, num_errors) + 1)
    return np.asarray(scipy.stats.hypergeom.pmf(possible, size, num_errors, num_drawn))


def _matters(item: _Tested) -> bool:
    wrong, expected = 1 - item.num_right / len(item.group.members), 1 - item.expected
    return wrong >= min(_TIMES_WORSE * expected, expected + _POINTS_WORSE)


def _is_far_worse(item: _Tested) -> bool:
    num_test = len(item.group.members)
    return (
        item.group.kind in ("column", "given")
        and item.expected - item.num_right / num_test >= _FAR_WORSE
        and item.expected * num_test - item.num_right >= _MANY_ERRORS
    )


def _weak_group(item: _Tested, evidence: Evidence) -> WeakGroup:
    group, members = item.group, item.group.members
    if group.kind != "features":
        wrong = members[evidence.predictions[members] != np.asarray(evidence.test_labels)[members]]
        members = wrong[np.argsort(-evidence.confidences[wrong], kind="stable")]
    return WeakGroup(
        kind=group.kind,
        name=group.name,
        value=group.value,
        label=group.label,
        proponent=None if group.proponent is None else evidence.reference("train", group.proponent),
        num_test=len(group.members),
        num_right=item.num_right,
        expected=item.expected,
        num_train=group.num_train,
        chance=item.chance,
        examples=tuple(
            GroupMember(evidence.reference("test", index), int(evidence.predictions[index]))
            for index in members[:NUM_SHOWN]
        ),
    )
