"""Groups of test examples whose numbers or independent labels are predicted with larger errors than the others'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import scipy.stats
from threadpoolctl import threadpool_limits

from deel_dualview.auditing.evidence import OutputEvidence
from deel_dualview.auditing.grouping import (
    LEAST_EXAMPLES,
    LEAST_OF_CLASS,
    NUM_CLUSTERS,
    Group,
    Tested,
    Values,
    beyond_chance,
    by_proponents,
    by_values,
    clusters,
    without_overlaps,
)
from deel_dualview.auditing.weak_groups import FALSE_ALARMS, NUM_GROUPS, NUM_SHOWN
from deel_dualview.linalg.rows import Rows
from deel_dualview.report.findings import Severity
from deel_dualview.report.output_findings import ErrorGroup, ErrorGroups

TIMES_LARGER = 1.5
"""A difference that matters; in a large test set smaller ones are beyond chance, too."""
_MOST_FITTED = 5_000


@dataclass(frozen=True)
class _Tested(Tested):
    error: float
    others: float


def find_error_groups(
    evidence: OutputEvidence, features: tuple[Rows, np.ndarray], *, columns: Values, given: Values
) -> Iterator[ErrorGroups]:
    """Yield the finding about groups with large errors; none without test labels.

    The error of an example is the mean over its outputs, of a single number in its unit. By the rank test of Mann and
    Whitney (1947) of a group against the others, corrected for the number of groups by Holm's (1979) method.

    Args:
        evidence: arrays of the audit.
        features: penultimate ones of the training set, shape (n, d), and of the test set, (m, d).
        columns: of the inputs.
        given: by the user.
    """
    errors = evidence.errors("test")
    if errors is None:
        return
    each = (errors * evidence.units if evidence.num_classes == 1 and evidence.has_numbers else errors).mean(
        axis=1
    )
    groups = [
        *_by_features(features[0][:], features[1]),
        *by_proponents(evidence),
        *by_values("column", columns),
        *by_values("given", given),
    ]
    tested = list(_test(groups, each, evidence.broken_test))
    found = without_overlaps(
        item for item in beyond_chance(tested, FALSE_ALARMS) if item.error >= TIMES_LARGER * item.others
    )
    inside = np.unique(np.concatenate([*(item.group.members for item in found), np.empty(0, np.int64)]))
    count = len(found)
    yield ErrorGroups(
        severity=Severity.LOOK if count else Severity.FINE if tested else Severity.CANNOT_TELL,
        title=(
            f"Errors are larger in {count:,} {'group' if count == 1 else 'groups'} of test examples"
            if count
            else "No group of test examples has larger errors than the others, beyond chance"
            if tested
            else "Cannot tell whether errors are larger in a group: no group of test examples is large enough"
        ),
        summary=(
            f"{len(tested):,} groups were tested: examples that are alike to the model, predictions with a common "
            "proponent, values of the columns and given groups, as far as there are any."
            if tested
            else f"A group needs {LEAST_EXAMPLES} test examples, and as many outside of it."
        ),
        count=count,
        share=len(inside) / evidence.num_test,
        num_examined=len(tested),
        groups=tuple(_described(item, each, evidence) for item in found[:NUM_GROUPS]),
    )


def _by_features(train: np.ndarray, test: np.ndarray) -> list[Group]:
    """Return clusters of the test examples, by the features of the training examples."""
    if len(test) < LEAST_OF_CLASS:
        return []
    centre, scale = train.mean(axis=0), train.std(axis=0)
    rows, queries = ((part - centre) / np.where(scale == 0, 1, scale) for part in (train, test))
    with threadpool_limits(1):
        found = list(clusters(rows, queries, NUM_CLUSTERS, most_fitted=_MOST_FITTED))
    return [Group("features", inside, num_train=num_train) for inside, num_train in found]


def _test(groups: Iterable[Group], errors: np.ndarray, broken: np.ndarray) -> Iterator[_Tested]:
    everyone = np.setdiff1d(np.arange(len(errors)), broken)
    for group in groups:
        members = group.members[~np.isin(group.members, broken)]
        others = np.setdiff1d(everyone, members)
        if min(len(members), len(others)) < LEAST_EXAMPLES:
            continue
        chance = scipy.stats.mannwhitneyu(errors[members], errors[others], alternative="greater").pvalue
        yield _Tested(
            replace(group, members=members),
            float(chance) if np.isfinite(chance) else 1.0,
            error=float(errors[members].mean()),
            others=float(errors[others].mean()),
        )


def _described(item: _Tested, errors: np.ndarray, evidence: OutputEvidence) -> ErrorGroup:
    group = item.group
    largest = group.members[np.argsort(-errors[group.members], kind="stable")][:NUM_SHOWN]
    return ErrorGroup(
        kind=group.kind,
        name=group.name,
        value=group.value,
        proponent=None if group.proponent is None else evidence.reference("train", group.proponent),
        num_test=len(group.members),
        error=item.error,
        others=item.others,
        num_train=group.num_train,
        chance=item.chance,
        examples=tuple(evidence.reference("test", int(index)) for index in largest),
    )
