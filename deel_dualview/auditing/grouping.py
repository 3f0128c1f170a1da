"""Groups of test examples that a model may be weak in: alike to the model, of one proponent, of one value."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from sklearn.cluster import KMeans
from threadpoolctl import threadpool_limits

from deel_dualview._checks import require
from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.predictions import top_proponents
from deel_dualview.labels import InputTable
from deel_dualview.linalg.rows import Rows, mean_and_deviation
from deel_dualview.plots.formatting import name_column
from deel_dualview.report.group_findings import GroupKind

Values = Mapping[str, tuple[np.ndarray | None, np.ndarray]]
"""Values of the training (None where they are not known) and of the test examples, by the name of a column."""

LEAST_EXAMPLES = 10
"""Smaller groups are not looked at: their errors could hardly be more than chance."""
NUM_CLUSTERS = (2, 4, 8)
"""A class is cut into so many clusters, wherever a cluster has `_LEAST_MEAN` test examples in the mean."""
_LEAST_MEAN = 12
LEAST_OF_CLASS = NUM_CLUSTERS[0] * _LEAST_MEAN
"""Smaller classes are not cut into clusters."""
_MOST_CLASSES, _MOST_FITTED = 100, 2_000
"""Clusters are made of the classes with most errors, each fitted to so many training examples at most."""
_MOST_CATEGORIES = 50
"""A column with up to 20 numbers is one of categories; one with more texts than this is one of texts."""
_FEW_NUMBERS = 20
MISSING = "missing"
_OVERLAP = 0.5
"""Of groups that share half of their examples, the one of least chance is reported."""


@dataclass(frozen=True)
class Group:
    """A group to test; see `WeakGroup`.

    Args:
        kind: what the examples have in common.
        members: positions of test examples, of `"features"` the most typical first.
        name: of a column.
        value: in words.
        label: a class.
        proponent: position of a training example.
        num_train: number of training examples, or None.
    """

    kind: GroupKind
    members: np.ndarray
    name: str = ""
    value: str = ""
    label: int | None = None
    proponent: int | None = None
    num_train: int | None = None


@dataclass(frozen=True)
class Tested:
    """A group that was tested.

    Args:
        group: its members that are not broken.
        chance: of errors as large as theirs, if the group had nothing to do with errors.
    """

    group: Group
    chance: float


_T = TypeVar("_T", bound=Tested)


def beyond_chance(tested: Collection[_T], limit: float) -> list[_T]:
    """Return the groups that Holm's (1979) correction for their number keeps, with the corrected chance."""
    kept, corrected = [], 0.0
    for place, item in enumerate(sorted(tested, key=lambda item: item.chance)):
        corrected = max(corrected, item.chance * (len(tested) - place))
        if corrected > limit:
            break
        kept.append(dataclasses.replace(item, chance=corrected))
    return kept


def without_overlaps(found: Iterable[_T]) -> list[_T]:
    """Leave out groups that are half in one before them, or hold half of it."""
    kept: list[_T] = []
    for item in found:
        own = item.group.members
        if not any(
            len(np.intersect1d(own, other.group.members))
            >= _OVERLAP * min(len(own), len(other.group.members))
            for other in kept
        ):
            kept.append(item)
    return kept


def clusters(
    train: np.ndarray, test: np.ndarray, numbers: Iterable[int], *, most_fitted: int
) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the test rows in each cluster, the most typical first, and how many training rows are in it.

    To be iterated over under `threadpool_limits(1)`: sums of several threads come in any order.

    Args:
        train: rows to fit to, shape (n, d).
        test: shape (m, d).
        numbers: of clusters; those above the number of distinct rows are left out.
        most_fitted: training rows that are fitted to at most.
    """
    fitted = train[np.random.default_rng(0).permutation(len(train))[:most_fitted]]
    num_distinct = len(np.unique(fitted, axis=0))
    for number in numbers:
        if num_distinct < number:
            continue
        found = KMeans(number, n_init=1, random_state=0).fit(fitted)
        in_train, distances = found.predict(train), found.transform(test)
        nearest = distances.argmin(axis=1)
        for cluster in range(number):
            inside = np.flatnonzero(nearest == cluster)
            yield (
                inside[np.argsort(distances[inside, cluster], kind="stable")],
                int((in_train == cluster).sum()),
            )


def by_features(evidence: Evidence, train: Rows, test: np.ndarray) -> list[Group]:
    """Return clusters of the test examples of each class, by the features of its training examples.

    Clusters of all classes together would be the classes themselves, and their errors what any confusion of classes
    looks like. A class without an error has no weak group.

    Args:
        evidence: arrays of the audit, with test labels.
        train: penultimate features, shape (n, d).
        test: shape (m, d).
    """
    with threadpool_limits(1):  # sums of several threads come in any order
        return list(_in_classes(evidence, train, test))


def by_proponents(evidence: Evidence) -> Iterator[Group]:
    """Yield, for each training example, the predictions of a class that have it among their strongest proponents."""
    strongest = top_proponents(evidence)
    tests = np.repeat(np.arange(evidence.num_test), [len(found) for found in strongest])
    trains = np.concatenate([*strongest, np.empty(0, np.int64)])
    keys = trains * evidence.num_classes + evidence.predictions[tests]
    order = np.argsort(keys, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
        if len(part) >= LEAST_EXAMPLES:
            train, label = divmod(int(keys[part[0]]), evidence.num_classes)
            yield Group("proponents", tests[part], label=label, proponent=train)


def by_values(kind: GroupKind, values: Values) -> Iterator[Group]:
    """Yield a group for each value of a column, or for each quarter of its numbers."""
    for name, (train, test) in values.items():
        if _is_of_numbers(train, test):
            yield from _quarters(kind, name, train, test)
        else:
            yield from _categories(kind, name, train, test)


def columns_of(table: InputTable, structure: Any, names: Sequence[str]) -> Values:
    """Return the columns of the inputs by their names.

    Args:
        table: which has read both sets.
        structure: of the inputs of a batch.
        names: of the columns of a single input, or none.
    """
    inputs, found = _leaf_names(structure), {}
    for column in table.columns():
        own = inputs[column.number]
        if not own:
            own = name_column(column.place, names)
        elif column.width > 1:
            own = f"{own}, column {column.place}"
        found[own if own not in found else f"{own} ({column.place})"] = (column.train, column.test)
    return found


def check_groups(groups: Any, num_test: int, *, has_labels: bool) -> Values:
    """Return the argument `groups` of an audit as values by name.

    Raises:
        ValueError: they are not one value for each test example, or the test set has no labels.
    """
    if groups is None:
        return {}
    require(
        has_labels,
        "`groups` needs a test set with labels, as `(x, y)`: weak groups are found by their errors.",
        {"groups": groups},
    )
    if hasattr(groups, "columns"):
        groups = {str(column): groups[column] for column in groups.columns}
    elif not isinstance(groups, Mapping):
        name = getattr(groups, "name", None)
        groups = {"group" if name is None else str(name): groups}
    found: dict[str, tuple[np.ndarray | None, np.ndarray]] = {}
    for name, given in groups.items():
        values = np.asarray(given)
        require(
            values.shape == (num_test,),
            "`groups` must have one value for each test example: an array, a Series, or a dict or DataFrame of several "
            "by their names.",
            {name: given, "shape": values.shape, "test examples": num_test},
        )
        found[str(name)] = (None, values)
    return found


def _in_classes(evidence: Evidence, train: Rows, test: np.ndarray) -> Iterator[Group]:
    given = np.asarray(evidence.test_labels)
    labels = np.where(np.isin(np.arange(len(given)), evidence.broken_test), -1, given)
    centre, scale = mean_and_deviation(train)
    num_wrong = np.bincount(labels[(labels >= 0) & (evidence.predictions != labels)], minlength=1)
    for label in np.argsort(-num_wrong, kind="stable")[:_MOST_CLASSES]:
        own_train = np.setdiff1d(np.flatnonzero(evidence.train_labels == label), evidence.broken_train)
        own_test = np.flatnonzero(labels == label)
        if not num_wrong[label]:
            continue
        rows, queries = ((part - centre) / scale for part in (train[own_train], test[own_test]))
        numbers = [number for number in NUM_CLUSTERS if len(queries) >= number * _LEAST_MEAN]
        for inside, num_train in clusters(rows, queries, numbers, most_fitted=_MOST_FITTED):
            yield Group("features", own_test[inside], label=int(label), num_train=num_train)


def _is_of_numbers(train: np.ndarray | None, test: np.ndarray) -> bool:
    values = test if train is None else np.concatenate([train, test])
    if values.dtype.kind not in "iuf":
        return False
    return len(np.unique(values[np.isfinite(values)])) > _FEW_NUMBERS


def _quarters(kind: GroupKind, name: str, train: np.ndarray | None, test: np.ndarray) -> Iterator[Group]:
    reference = test if train is None else train
    finite = reference[np.isfinite(reference)]
    edges = np.unique(np.quantile(finite, [0.25, 0.5, 0.75])) if len(finite) else np.empty(0)
    quarters = np.searchsorted(edges, test)
    in_train = None if train is None else np.searchsorted(edges, train[np.isfinite(train)])
    for quarter in range(len(edges) + 1):
        members = np.flatnonzero((quarters == quarter) & np.isfinite(test))
        if len(members):
            yield Group(
                kind,
                members,
                name,
                f"{test[members].min():.6g} to {test[members].max():.6g}",
                num_train=None if in_train is None else int((in_train == quarter).sum()),
            )
    if len(members := np.flatnonzero(~np.isfinite(test))):
        num_train = None if train is None else int((~np.isfinite(train)).sum())
        yield Group(kind, members, name, MISSING, num_train=num_train)


def _categories(kind: GroupKind, name: str, train: np.ndarray | None, test: np.ndarray) -> Iterator[Group]:
    own, given = _in_words(test), None if train is None else _in_words(train)
    categories, inverse = np.unique(own, return_inverse=True)
    if len(categories) > _MOST_CATEGORIES and kind == "column":
        return
    for place, category in enumerate(categories):
        num_train = None if given is None else int((given == category).sum())
        yield Group(kind, np.flatnonzero(inverse == place), name, str(category), num_train=num_train)


def _in_words(values: np.ndarray) -> np.ndarray:
    """Return values as texts; what is None or not a number is missing."""
    if values.dtype.kind in "iub":
        return values.astype(str)
    return np.array([_in_word(value) for value in values.tolist()], dtype=str)


def _in_word(value: object) -> str:
    if value is None or value != value or value == "":
        return MISSING
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _leaf_names(structure: Any) -> list[str]:
    """Return a name for each input of a structure, in the order of `tf.nest.flatten`; "" for one input alone."""
    if isinstance(structure, Mapping):
        named: Sequence[tuple[str, Any]] = [(str(name), structure[name]) for name in sorted(structure)]
    elif isinstance(structure, (tuple, list)):
        named = [(f"input {place}", part) for place, part in enumerate(structure)]
    else:
        return [""]
    return [f"{name} {inner}".strip() for name, part in named for inner in _leaf_names(part)]
