"""Checks of the data that need no attribution: the scale of the inputs, outliers, and classes the model is weak in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import scipy.stats
from sklearn.neighbors import NearestNeighbors

from deel_dualview.auditing.evidence import Evidence, guesses
from deel_dualview.labels import InputRange
from deel_dualview.linalg.rows import Rows, mean_and_deviation, row_slices
from deel_dualview.report.data_findings import (
    ClassAccuracy,
    InputScale,
    Outlier,
    Outliers,
    ValueRange,
    WeakClasses,
)
from deel_dualview.report.findings import Severity
from deel_dualview.report.wording import joined

CHANCE = 0.01
"""A finding stands where chance alone would make it so seldom, whatever the number of classes."""
MOST_GUESSED = 0.75
"""Where one class has more of the labels, a model that always names it is not far from any other."""
ABOVE_CHANCE, _MOST_COUNTED, _LARGEST_BYTE = 1.25, 0.99, 255.0
"""A training loss so many times that of guessing, without the largest hundredth of the losses, is none of a training
that ended; an untrained network is a little above guessing."""
OTHER_SCALE = 20.0
"""Numbers of one set are of another size where the largest is so many times that of the other set."""
NUM_NEIGHBOURS, FAR_QUANTILE, FAR_RATIO = 10, 0.95, 2.5
"""Outliers: the distance to the tenth nearest training example is more than 2.5 times one that 95 % of the training set
stay below. These distances have heavy tails (a log-normal rather than a normal distribution), so that quartiles and
interquartile ranges call 1 to 4 % of ordinary examples outliers; see docs/measurements/data_checks.md."""
USUALLY_FAR, FAR_CHANCE = 0.001, 0.01
"""The share of clean sets that is so far, and how seldom chance makes a number of them that is worth a look."""
_LEAST_EXAMPLES = 50
_MOST_REFERENCES, _LEAST_REFERENCES, _MOST_PAIRS = 10_000, 2_000, 2_000_000_000
"""Training examples that all are compared with: fewer where there are more than 200,000."""
_LEAST_DISTANCE = 1e-12
IMBALANCED = 10.0
MOST_NAMED = 3
"""A title names so many classes: more make no heading."""


def check_scale(
    predictions: np.ndarray,
    train_labels: np.ndarray,
    ranges: Sequence[InputRange],
    *,
    losses: np.ndarray | None = None,
    images: Collection[int] = (),
) -> Iterator[InputScale]:
    """Yield the finding that the inputs are not those of the training, if they cannot be.

    Args:
        predictions: classes that the model predicts of the training set, shape (n,).
        train_labels: shape (n,).
        ranges: of the numeric inputs of both sets.
        losses: cross-entropy of the training examples in nats, shape (n,), or None where it is not known.
        images: numbers of the inputs that are images.
    """
    if not len(train_labels):
        return
    num_train = len(train_labels)
    largest_share = np.bincount(train_labels).max() / num_train
    right = int((predictions == train_labels).sum())
    training_accuracy = right / num_train
    chance = scipy.stats.binomtest(right, num_train, min(largest_share, 1.0), alternative="greater").pvalue
    # A weak model of rare classes hardly beats naming the largest one.
    is_guessing = (
        chance > CHANCE
        and largest_share < 1
        and training_accuracy < MOST_GUESSED
        and num_train >= _LEAST_EXAMPLES
    )
    differing = _differing(ranges)
    loss = None if losses is None else float(np.mean(losses))
    by_chance = float(np.log(len(np.unique(train_labels))))
    is_lossy = bool(
        losses is not None
        and by_chance > 0
        and num_train >= _LEAST_EXAMPLES
        # The mean without the largest ones: a few odd examples make no loss of all.
        and np.sort(losses)[: int(_MOST_COUNTED * num_train)].mean() > ABOVE_CHANCE * by_chance
    )
    if not is_guessing and not differing and not is_lossy:
        return
    in_bytes = any(
        item.number in images and item.low >= 0 and 1 < item.high <= _LARGEST_BYTE for item in ranges
    )
    numbers = "; ".join(
        f"{item.split} {_write(item.low)} to {_write(item.high)}" for item in (differing or ranges)[:4]
    )
    if is_guessing:
        title = f"The model is right on {training_accuracy:.1%} of its own training labels: no better than guessing"
        summary = (
            f"Always naming the largest class would be right on {largest_share:.1%}. Either these are not the inputs "
            "that it was trained on (scaled or ordered otherwise), or the classes are numbered otherwise, or it is not "
            f"trained. Numbers of the inputs: {numbers or 'none'}. Nothing else on this page can be relied on."
        )
    elif not differing:
        title = (
            f"The training loss is {loss:.1f} nats, guessing has {by_chance:.1f}, although {training_accuracy:.1%} of "
            "the training labels are predicted"
        )
        summary = (
            "No training by cross-entropy ends above guessing: inputs of another scale"
            + (" (images from 0 to 255 in the place of 0 to 1?)" if in_bytes else "")
            + f", or labels that the model was not trained on? Numbers of the inputs: {numbers or 'none'}."
        )
    else:
        title = "The inputs of the two sets are of another scale"
        summary = (
            f"Numbers of the inputs: {numbers}. A network that was trained on the one cannot read the other: prepare "
            "both sets alike."
        )
    yield InputScale(
        severity=Severity.ACT if is_guessing or differing or in_bytes else Severity.LOOK,
        title=title,
        summary=summary,
        count=1,
        share=1.0,
        is_guessing=is_guessing,
        training_accuracy=training_accuracy,
        training_loss=loss if is_lossy and not is_guessing and not differing else None,
        ranges=tuple(ValueRange(item.split, item.number, item.low, item.high) for item in ranges),
    )


def find_outliers(evidence: Evidence, train: Rows, test: np.ndarray) -> Iterator[Outliers]:
    """Yield the finding about examples that are far from all training examples; none for few examples.

    Args:
        evidence: arrays of the audit.
        train: penultimate features of the training set, shape (n, d).
        test: of the test set, shape (m, d).
    """
    whole = np.setdiff1d(np.arange(len(train)), evidence.broken_train)
    if len(whole) < _LEAST_EXAMPLES:
        return
    center, scale = mean_and_deviation(train)
    num_references = int(min(_MOST_REFERENCES, max(_MOST_PAIRS // len(train), _LEAST_REFERENCES)))
    references = np.sort(np.random.default_rng(0).permutation(whole)[:num_references])
    neighbours = NearestNeighbors(n_neighbors=NUM_NEIGHBOURS + 1)
    neighbours.fit((train[references] - center) / scale)
    is_reference = np.isin(np.arange(len(train)), references)
    own = np.empty(len(train))
    for part in row_slices(*train.shape):
        distances = neighbours.kneighbors((train[part] - center) / scale)[0]
        # A training example that is a reference is its own nearest one.
        own[part] = np.where(
            is_reference[part], distances[:, NUM_NEIGHBOURS], distances[:, NUM_NEIGHBOURS - 1]
        )
    of_test = neighbours.kneighbors((test - center) / scale, NUM_NEIGHBOURS)[0][:, -1]
    # Where most examples have copies, the others say what is usual.
    apart = own[whole][own[whole] > _LEAST_DISTANCE]
    middle, far = np.quantile(apart, [0.5, FAR_QUANTILE]) if len(apart) else (0.0, 0.0)
    limit = max(FAR_RATIO * float(far), _LEAST_DISTANCE)
    whole_test = np.setdiff1d(np.arange(len(test)), evidence.broken_test)
    outside = {"train": whole[own[whole] > limit], "test": whole_test[of_test[whole_test] > limit]}
    values = {"train": own, "test": of_test}
    ranked = sorted(
        ((float(values[split][index]), split, int(index)) for split in outside for index in outside[split]),
        key=lambda item: (-item[0], item[1], item[2]),
    )
    num_train, num_test = len(outside["train"]), len(outside["test"])
    count, total = num_train + num_test, evidence.num_train + evidence.num_test
    is_more = count > scipy.stats.poisson.isf(FAR_CHANCE, USUALLY_FAR * total)
    usually = f"Clean sets of this size have about {max(round(USUALLY_FAR * total), 1):,}."
    yield Outliers(
        severity=Severity.LOOK if is_more else Severity.KNOW if count else Severity.FINE,
        title=(
            f"{count:,} {'example is' if count == 1 else 'examples are'} far from all training examples in the "
            "model's features"
            if count
            else "No example is far from the training examples in the model's features"
        ),
        summary=(
            f"{num_train:,} training and {num_test:,} test examples, by the distance to the tenth nearest training "
            f"example: damaged, of another kind, or rare. {usually} A prediction for such a test example rests on "
            "little. Damage that leaves the features ordinary is not seen."
            if count
            else "By the distance to the tenth nearest training example. Damage that leaves the features ordinary is "
            "not seen."
        ),
        count=count,
        share=count / total,
        num_train=num_train,
        num_test=num_test,
        examples=tuple(
            Outlier(
                evidence.reference("train" if split == "train" else "test", index),
                float(value / max(middle, _LEAST_DISTANCE)),
            )
            for value, split, index in ranked
        ),
    )


def find_weak_classes(evidence: Evidence, class_names: Sequence[str] = ()) -> Iterator[WeakClasses]:
    """Yield the finding about classes whose test labels are predicted less often than those of all, beyond chance.

    A class of the model without a training example is reported, too.

    Args:
        evidence: arrays of the audit.
        class_names: for the title; without them it has no names.
    """
    if evidence.test_labels is None:
        return
    right = evidence.predictions == evidence.test_labels
    num_classes = evidence.num_classes
    num_train = np.bincount(evidence.train_labels, minlength=num_classes)
    num_test = np.bincount(evidence.test_labels, minlength=num_classes)
    num_right = np.bincount(evidence.test_labels[right], minlength=num_classes)
    classes = []
    for label in range(num_classes):
        others = len(right) - num_test[label]
        is_weak = False
        if num_test[label] and others:
            table = [
                [num_right[label], num_test[label] - num_right[label]],
                [right.sum() - num_right[label], others - (right.sum() - num_right[label])],
            ]
            chance = scipy.stats.fisher_exact(table, alternative="less").pvalue
            is_weak = bool(chance < CHANCE / num_classes)
        classes.append(
            ClassAccuracy(label, int(num_train[label]), int(num_test[label]), int(num_right[label]), is_weak)
        )
    weak = [item for item in classes if item.is_weak]
    is_guess = guesses(evidence)
    can_tell = not is_guess and _would_find(num_test, right)
    absent_labels = np.flatnonzero(num_train == 0)
    num_absent = len(absent_labels)
    absent = f"{num_absent:,} of {num_classes:,} classes {'has' if num_absent == 1 else 'have'} no training example"
    which = [str(class_names[label] if class_names else label) for label in absent_labels.tolist()]
    is_listed = 0 < num_absent <= MOST_NAMED
    absent_title = absent + (f" ({joined(which)})" if is_listed else "")
    is_short = class_names and len(weak) <= MOST_NAMED
    named = f": {joined([class_names[item.label] for item in weak])}" if weak and is_short else ""
    is_of_one = num_classes > 1 and num_absent == num_classes - 1
    ratio = num_train.max() / max(num_train[num_train > 0].min(), 1)
    known = f"The largest class has {ratio:.0f} times as many training examples as the smallest. "
    yield WeakClasses(
        severity=(
            Severity.ACT
            if is_of_one
            else Severity.LOOK
            if weak or num_absent
            else Severity.CANNOT_TELL
            if not can_tell
            else Severity.KNOW
            if ratio >= IMBALANCED
            else Severity.FINE
        ),
        title=(
            "All training examples are of one class: " + absent_title
            if is_of_one
            else absent_title + (f", {len(weak):,} predicted worse than the rest{named}" if weak else "")
            if num_absent
            else f"{len(weak):,} of {num_classes:,} {'classes is' if len(weak) == 1 else 'classes are'} predicted "
            f"worse than the rest{named}"
            if weak
            else "No class is predicted worse than the rest, beyond chance"
            if can_tell
            else "Cannot tell whether any class is predicted worse than the rest: "
            + (
                "the model is no better than guessing on the test set"
                if is_guess
                else "too few test examples"
            )
        ),
        summary=(f"{absent}: the model cannot have learned them from this set. " if num_absent else "")
        + (known if ratio >= IMBALANCED else "")
        + (
            ""
            if can_tell or is_guess
            else "Were a class right half as often as the others, it could still be chance. "
        )
        + "By Fisher's exact test of a class's test labels against all others, corrected for the number of classes.",
        count=len(weak),
        share=len(weak) / num_classes,
        classes=tuple(
            sorted(
                classes,
                key=lambda item: (not item.is_weak, item.num_right / max(item.num_test, 1), item.label),
            )
        ),
    )


def _would_find(num_test: np.ndarray, right: np.ndarray) -> bool:
    """Return whether most test examples are of classes that would be found if they were right half as often."""
    num_classes, total = len(num_test), len(right)
    accuracy = right.mean()
    found = 0
    for number, times in zip(*np.unique(num_test[num_test > 0], return_counts=True), strict=True):
        own, others = round(accuracy / 2 * number), round(accuracy * (total - number))
        table = [[own, number - own], [others, total - number - others]]
        if scipy.stats.fisher_exact(table, alternative="less").pvalue < CHANCE / num_classes:
            found += number * times
    return bool(2 * found >= total)


def _differing(ranges: Sequence[InputRange]) -> list[InputRange]:
    """Return the ranges of an input whose numbers differ in size between the sets."""
    sizes = {(item.split, item.number): max(abs(item.low), abs(item.high)) for item in ranges}
    found = []
    for item in ranges:
        both = [sizes.get((split, item.number), 0.0) for split in ("train", "test")]
        if min(both) > 0 and max(both) >= OTHER_SCALE * min(both):
            found.append(item)
    return found


def _write(number: float) -> str:
    return f"{number:.4g}"
