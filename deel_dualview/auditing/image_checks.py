"""Checks of what images look like: odd ones, and properties that give the label away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats
from sklearn.metrics import recall_score
from sklearn.model_selection import train_test_split
from sklearn.tree import DecisionTreeClassifier

from deel_dualview.auditing.evidence import Evidence
from deel_dualview.auditing.image_properties import BRIGHTNESS, CONTRAST, PROPERTIES, SHARPNESS
from deel_dualview.report.findings import Severity
from deel_dualview.report.input_findings import InputProblem, OddExample
from deel_dualview.report.wording import joined

NUM_RANGES, LEAST_FACTOR, LEAST_SHARPNESS_FACTOR = 3.0, 5.0, 3.0
"""Odd images: on a logarithmic scale more than three interquartile ranges outside the quartiles (Tukey's far out), and
a fifth of the usual value (a third, of the sharpness), which a set of similar images does not reach."""
NUM_SHOWN = 5
LEAST_AUC, LEAST_SKILL = 0.97, 0.4
"""A property gives a class, or all of them, away: area under the ROC curve, and how far the balanced accuracy of a tree
is from chance (0) to perfect (1). MNIST reaches .92 (ones are thin) and .10, Fashion-MNIST .89 and .19, CIFAR-10 .74
and .08."""
LEAST_SHIFT, CHANCE = 0.3, 0.001
"""A property differs between the sets: distance of the two distributions (Kolmogorov and Smirnov), beyond chance."""
_LEAST_EXAMPLES, _LEAST_OF_CLASS, _MOST_FITTED = 50, 20, 4000


class Properties(NamedTuple):
    """Properties of the images of both sets, (n, 4) and (m, 4), NaN in rows that are not to be judged."""

    train: np.ndarray
    test: np.ndarray


class _Way(NamedTuple):
    """A way to be odd: in which property, on which side, by which factor, and what it is called."""

    property: str
    is_low: bool
    factor: float
    word: str
    advice: str


_WAYS = (
    _Way(BRIGHTNESS, True, LEAST_FACTOR, "much darker than the rest", "Under-exposed, or scaled otherwise?"),
    _Way(
        BRIGHTNESS, False, LEAST_FACTOR, "much brighter than the rest", "Over-exposed, or scaled otherwise?"
    ),
    _Way(
        CONTRAST,
        True,
        LEAST_FACTOR,
        "of much less contrast than the rest",
        "Is there anything to see in them?",
    ),
    _Way(SHARPNESS, True, LEAST_SHARPNESS_FACTOR, "blurred", "Out of focus, or enlarged from small ones?"),
    _Way(SHARPNESS, False, LEAST_SHARPNESS_FACTOR, "much sharper than the rest", "Noise, or damaged files?"),
)


def find_image_problems(
    evidence: Evidence, properties: Properties, class_names: Sequence[str]
) -> Iterator[InputProblem]:
    """Yield what is unusual about the images; little is said about few of them.

    Args:
        evidence: arrays of the audit.
        properties: of the images of both sets.
        class_names: of the classes.
    """
    yield from _one_colour(evidence, properties)
    if len(properties.train) < _LEAST_EXAMPLES:
        return
    for way in _WAYS:
        yield from _odd_images(evidence, properties, way)
    yield from find_shifts(properties, evidence.train_labels, evidence.test_labels, class_names)
    yield from find_shortcuts(properties.train, evidence.train_labels, class_names)


def _one_colour(evidence: Evidence, properties: Properties) -> Iterator[InputProblem]:
    column = PROPERTIES.index(CONTRAST)
    found = [
        (split, int(index))
        for split, rows in _splits(properties)
        for index in np.flatnonzero(rows[:, column] == 0)
    ]
    if found:
        yield InputProblem(
            kind="constant",
            severity=Severity.LOOK,
            title=f"{_images(len(found))} of one colour",
            advice="Nothing is to be seen in them: files that could not be read? Drop them, or load them again.",
            count=len(found),
            examples=tuple(
                OddExample(evidence.reference(split, index), "one colour")
                for split, index in found[:NUM_SHOWN]
            ),
        )


def _odd_images(evidence: Evidence, properties: Properties, way: _Way) -> Iterator[InputProblem]:
    column = PROPERTIES.index(way.property)
    given = _to_judge(properties.train, column, way)
    if not len(given):
        return
    first, middle, third = np.quantile(given, [0.25, 0.5, 0.75])
    limit = min(first - NUM_RANGES * (third - first), middle - np.log(way.factor))
    found = []
    for split, rows in _splits(properties):
        values = _logarithm(rows, column, way)
        found += [(float(values[index]), split, int(index)) for index in np.flatnonzero(values < limit)]
    if not found:
        return
    usual = float(np.nanmedian(properties.train[:, column]))
    notes = dict(_splits(properties))
    yield InputProblem(
        kind="odd-images",
        severity=Severity.LOOK,
        title=f"{_images(len(found))} {way.word}",
        advice=f"{way.advice} The usual {way.property} is {usual:.2f}. Drop or repair those that are no fair examples.",
        count=len(found),
        examples=tuple(
            OddExample(evidence.reference(split, index), f"{way.property} {notes[split][index, column]:.2f}")
            for _, split, index in sorted(found)[:NUM_SHOWN]
        ),
    )


def _to_judge(rows: np.ndarray, column: int, way: _Way) -> np.ndarray:
    values = _logarithm(rows, column, way)
    return values[np.isfinite(values)]


def _logarithm(rows: np.ndarray, column: int, way: _Way) -> np.ndarray:
    """Return a property so that odd values are low: its logarithm; of bright images, that of what lacks to white."""
    values = rows[:, column]
    # Images of one colour are a problem of their own.
    values = np.where(rows[:, PROPERTIES.index(CONTRAST)] > 0, values, np.nan)
    if way.property == BRIGHTNESS and not way.is_low:
        values = 1 - values
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithms = np.log(values)
    return logarithms if way.is_low or way.property == BRIGHTNESS else -logarithms


def find_shortcuts(
    rows: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> Iterator[InputProblem]:
    """Yield which properties alone tell a class from all others, or much of all classes.

    Args:
        rows: properties of the training set, shape (n, 4).
        labels: shape (n,).
        class_names: of the classes.
    """
    of_class: dict[int, list[str]] = {}
    of_all = []
    for column, name in enumerate(PROPERTIES):
        known = np.isfinite(rows[:, column])
        values, own_labels = rows[known, column], labels[known]
        if len(values) < _LEAST_EXAMPLES:
            continue
        areas = class_areas(values, own_labels)
        label = max(areas, key=lambda own: abs(areas[own] - 0.5), default=0)
        area = areas.get(label, 0.5)
        if max(area, 1 - area) >= LEAST_AUC:
            side = _word(1 if area > 0.5 else -1)
            of_class.setdefault(label, []).append(f"{side} {name} (area {max(area, 1 - area):.2f})")
        elif (skill := tree_skill(values, own_labels)) >= LEAST_SKILL:
            of_all.append(f"{name} ({skill:.0%} of the way from chance to certainty)")
    advice = (
        "A model can use this in place of what is in the image. If it comes from how the images were made (camera, "
        "background, scaling), make them alike, or vary it in training."
    )
    for label, found in of_class.items():
        yield InputProblem(
            kind="shortcut",
            severity=Severity.KNOW,
            title=f"Training images of class {class_names[label]} can be recognised by how they look as a whole",
            advice=f"By a {joined(found)}, as no other class. {advice}",
            count=1,
        )
    if of_all:
        yield InputProblem(
            kind="shortcut",
            severity=Severity.KNOW,
            title="How a training image looks as a whole tells much of its class",
            advice=f"By its {joined(of_all)}. {advice}",
            count=len(np.unique(labels)),
        )


def find_shifts(
    properties: Properties,
    train_labels: np.ndarray,
    test_labels: np.ndarray | None,
    class_names: Sequence[str],
) -> Iterator[InputProblem]:
    """Yield the properties that differ between the sets: in all images, else in those of single classes.

    Args:
        properties: of both sets.
        train_labels: shape (n,).
        test_labels: shape (m,), or None.
        class_names: of the classes.
    """
    in_all: list[str] = []
    in_class: dict[int, list[str]] = {}
    chance = CHANCE / len(PROPERTIES)
    for column, name in enumerate(PROPERTIES):
        train, test = properties.train[:, column], properties.test[:, column]
        if is_shifted(train, test, chance):
            in_all.append(_medians(name, train, test))
        elif test_labels is not None:
            for label in range(len(class_names)):
                own = train[train_labels == label], test[test_labels == label]
                if is_shifted(*own, chance / len(class_names)):
                    in_class.setdefault(label, []).append(_medians(name, *own))
    if in_all:
        yield InputProblem(
            kind="shift",
            severity=Severity.LOOK,
            title="Test images look other than training images as a whole",
            advice=(
                f"By {joined(in_all)}. The test set is of another kind, or prepared otherwise: the test score is not "
                "that of images like those of the training set."
            ),
            count=len(properties.test),
        )
    if in_class:
        first = next(iter(in_class))
        names = joined([class_names[label] for label in in_class][:5])
        more = f" and {len(in_class) - 5} more" if len(in_class) > 5 else ""
        classes = "class" if len(in_class) == 1 else "classes"
        yield InputProblem(
            kind="shift",
            severity=Severity.LOOK,
            title=f"Images of {classes} {names}{more} look other in training than in test",
            advice=(
                f"{class_names[first]} by {joined(in_class[first])}. The model may have learned this in place of the "
                "class: see whether these images were made otherwise."
            ),
            count=len(in_class),
        )


def class_areas(values: np.ndarray, labels: np.ndarray) -> dict[int, float]:
    """Return for each class of enough examples the area under the ROC curve of a property against all others."""
    ranks = scipy.stats.rankdata(values)
    found = {}
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        others = len(values) - count
        if count >= _LEAST_OF_CLASS and others >= _LEAST_OF_CLASS:
            above = ranks[labels == label].sum() - count * (count + 1) / 2
            found[int(label)] = float(above / (count * others))
    return found


def tree_skill(values: np.ndarray, labels: np.ndarray) -> float:
    """Return how far a property alone brings a small tree from chance (0) to perfect (1) on held-out examples."""
    classes, counts = np.unique(labels, return_counts=True)
    kept = np.isin(labels, classes[counts >= _LEAST_OF_CLASS])
    values, labels = values[kept], labels[kept]
    num_classes = len(np.unique(labels))
    if num_classes < 2:
        return 0.0
    if len(values) > _MOST_FITTED:
        chosen = np.random.default_rng(0).permutation(len(values))[:_MOST_FITTED]
        values, labels = values[chosen], labels[chosen]
    fitted, held_out, fitted_labels, held_out_labels = train_test_split(
        values[:, np.newaxis], labels, test_size=0.5, random_state=0
    )
    tree = DecisionTreeClassifier(
        max_leaf_nodes=2 * num_classes, min_samples_leaf=2, class_weight="balanced", random_state=0
    )
    predicted = tree.fit(fitted, fitted_labels).predict(held_out)
    accuracy = recall_score(held_out_labels, predicted, labels=np.unique(held_out_labels), average="macro")
    return float((accuracy - 1 / num_classes) / (1 - 1 / num_classes))


def is_shifted(train: np.ndarray, test: np.ndarray, chance: float) -> bool:
    """Return whether a property differs between two sets, by far and beyond chance."""
    train, test = train[np.isfinite(train)], test[np.isfinite(test)]
    if min(len(train), len(test)) < _LEAST_OF_CLASS:
        return False
    found = scipy.stats.ks_2samp(train, test, method="asymp")
    return bool(found.pvalue <= chance and found.statistic >= LEAST_SHIFT)


def _medians(name: str, train: np.ndarray, test: np.ndarray) -> str:
    return f"{name} (median {np.nanmedian(train):.2f} in training, {np.nanmedian(test):.2f} in test)"


def _splits(properties: Properties) -> tuple[tuple[Literal["train", "test"], np.ndarray], ...]:
    return (("train", properties.train), ("test", properties.test))


def _images(count: int) -> str:
    return f"{count:,} {'image is' if count == 1 else 'images are'}"


def _word(direction: int) -> str:
    return "higher" if direction > 0 else "lower"
