"""Groups of test examples whose numbers or independent labels are predicted with larger errors than the others'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import scipy.stats
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from deel_dualview.auditing.evidence import OutputEvidence
from deel_dualview.auditing.grouping import (
    LEAST_EXAMPLES,
    LEAST_OF_CLASS,
    NUM_CLUSTERS,
    Group,
    Values,
    by_proponents,
    by_values,
)
from deel_dualview.auditing.weak_groups import FALSE_ALARMS, NUM_GROUPS, NUM_SHOWN
from deel_dualview.report.findings import Severity
from deel_dualview.report.output_findings import ErrorGroup, ErrorGroups

TIMES_LARGER = 1.5
"""A difference that matters; in a large test set smaller ones are beyond chance, too."""
_OVERLAP = 0.5
_MOST_FITTED = 5_000


class _Tested(NamedTuple):
    group: Group
    error: float
    others: float
    chance: float


def find_error_groups(
    evidence: OutputEvidence, features: tuple[np.ndarray, np.ndarray], *, columns: Values, given: Values
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
        *_clusters(*features),
        *by_proponents(evidence),
        *by_values("column", columns),
        *by_values("given", given),
    ]
    tested = list(_test(groups, each, evidence.broken_test))
    found = _distinct([item for item in _beyond_chance(tested) if item.error >= TIMES_LARGER * item.others])
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


def _clusters(train: np.ndarray, test: np.ndarray) -> Iterator[Group]:
    """Yield clusters of the test examples, by the features of the training examples."""
    centre, scale = train.mean(axis=0), train.std(axis=0)
    rows, queries = ((part - centre) / np.where(scale == 0, 1, scale) for part in (train, test))
    fitted = rows[np.random.default_rng(0).permutation(len(rows))[:_MOST_FITTED]]
    num_distinct = len(np.unique(fitted, axis=0))
    if len(queries) < LEAST_OF_CLASS:
        return
    with threadpool_limits(1):  # sums of several threads come in any order
        for number in NUM_CLUSTERS:
            if num_distinct < number:
                continue
            clusters = KMeans(number, n_init=1, random_state=0).fit(fitted)
            in_train, distances = clusters.predict(rows), clusters.transform(queries)
            nearest = distances.argmin(axis=1)
            for cluster in range(number):
                inside = np.flatnonzero(nearest == cluster)
                inside = inside[np.argsort(distances[inside, cluster], kind="stable")]
                yield Group("features", inside, num_train=int((in_train == cluster).sum()))


def _test(groups: Iterable[Group], errors: np.ndarray, broken: np.ndarray) -> Iterator[_Tested]:
    everyone = np.setdiff1d(np.arange(len(errors)), broken)
    for group in groups:
        members = group.members[~np.isin(group.members, broken)]
        others = np.setdiff1d(everyone, members)
        if min(len(members), len(others)) < LEAST_EXAMPLES:
            continue
        chance = scipy.stats.mannwhitneyu(errors[members], errors[others], alternative="greater").pvalue
        yield _Tested(
            Group(
                group.kind, members, group.name, group.value, group.label, group.proponent, group.num_train
            ),
            float(errors[members].mean()),
            float(errors[others].mean()),
            float(chance) if np.isfinite(chance) else 1.0,
        )


def _beyond_chance(tested: list[_Tested]) -> list[_Tested]:
    kept, corrected = [], 0.0
    for place, item in enumerate(sorted(tested, key=lambda item: item.chance)):
        corrected = max(corrected, item.chance * (len(tested) - place))
        if corrected > FALSE_ALARMS:
            break
        kept.append(item._replace(chance=corrected))
    return kept


def _distinct(found: list[_Tested]) -> list[_Tested]:
    """Leave out groups that are half in one before them, or hold half of it."""
    kept: list[_Tested] = []
    for item in found:
        own = item.group.members
        if not any(
            len(np.intersect1d(own, other.group.members))
            >= _OVERLAP * min(len(own), len(other.group.members))
            for other in kept
        ):
            kept.append(item)
    return kept


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
