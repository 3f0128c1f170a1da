"""Findings about examples that occur twice: in both splits, or in training with different or the same labels."""

from __future__ import annotations

from typing import Literal

import numpy as np

from deel_dualview.auditing import duplicates
from deel_dualview.auditing.duplicates import Pairs
from deel_dualview.auditing.evidence import Evidence, severity_of
from deel_dualview.auditing.reading import SplitContents
from deel_dualview.report.findings import (
    ConflictingDuplicates,
    Duplicates,
    Finding,
    Leaks,
    Severity,
    SimilarPair,
)

NUM_PAIRS = 24
MANY_LEAKS = 0.01
"""From this share of leaked test examples on, the finding is a warning."""
MANY_COPIES = 0.01
"""From this share of training examples that are copies of others on, they are worth a look."""


def find_duplicates(evidence: Evidence, train: SplitContents, test: SplitContents) -> list[Finding]:
    """Find examples that occur twice, or look alike, without reading an input again.

    Args:
        evidence: arrays of the audit.
        train: contents of the n training examples.
        test: contents of the m test examples.

    Returns:
        Leaks, duplicates of another label, and duplicates of the same label.
    """
    across, within = duplicates.look_alikes(train.sketches, train.hashes, test.sketches, test.hashes)
    has_one_label = evidence.has_one_label(within.first, within.second)
    return [
        _find_leaks(evidence, duplicates.identical_across(train.hashes, test.hashes), across),
        _find_conflicts(evidence, train.hashes, within.where(~has_one_label)),
        _find_copies(evidence, train.hashes, within.where(has_one_label)),
    ]


def _find_leaks(evidence: Evidence, identical: Pairs, near: Pairs) -> Leaks:
    """List test examples that are in the training set too, or look like one there."""
    near = near.where(np.sort(np.unique(near.first, return_index=True)[1]))
    num_identical = len(identical.first)
    count = num_identical + len(near.first)
    return Leaks(
        severity=_severity(num_identical / evidence.num_test, count, MANY_LEAKS, Severity.KNOW),
        title=_leak_title(num_identical, len(near.first)),
        summary=(
            f"{len(near.first):,} of {evidence.num_test:,} test examples {'is' if count == 1 else 'are'} nearer to a "
            "training example than chance makes any, and not identical: compare them."
            if count and not num_identical
            else f"Of {evidence.num_test:,} test examples {num_identical:,} {'has' if num_identical == 1 else 'have'} "
            "exactly the inputs of a training example: the accuracy on them says nothing about new ones. "
            f"{len(near.first):,} more, nearer to one than chance makes any, should be compared."
            if count
            else "No test example has the inputs of a training example, and none looks like one."
        ),
        count=count,
        share=count / evidence.num_test,
        num_identical=num_identical,
        pairs=_pairs(evidence, identical, near, "test"),
    )


def _find_conflicts(evidence: Evidence, hashes: np.ndarray, near: Pairs) -> ConflictingDuplicates:
    """List training examples that have the same inputs as one of another label, or look like one."""
    identical, is_conflicting = _identical_of_other_label(evidence, hashes)
    num_identical = int(is_conflicting.sum())
    in_near = np.unique(np.concatenate([near.first, near.second]))
    num_near = int((~is_conflicting[in_near]).sum())
    count, other = num_identical + num_near, evidence.another_label
    return ConflictingDuplicates(
        severity=_severity(num_identical / evidence.num_train, count, 0, Severity.LOOK),
        title=_conflict_title(num_identical, num_near, evidence.another_label),
        summary=(
            f"{num_identical:,} have exactly the same inputs as one {other}: at most one label of such a pair "
            f"can be right. {num_near:,} look like one {other}: compare them, for examples of two classes may "
            "look alike."
            if count and other == "of another label"
            else f"{num_identical:,} have exactly the same inputs as one {other}, and {num_near:,} look like one: "
            "both labels can hardly be right, unless the inputs leave out what makes the difference."
            if count
            else "Training examples with the same inputs have the same label, and so have those that look alike."
        ),
        count=count,
        share=count / evidence.num_train,
        num_identical=num_identical,
        pairs=_pairs(evidence, identical, near, "train"),
    )


def _identical_of_other_label(evidence: Evidence, hashes: np.ndarray) -> tuple[Pairs, np.ndarray]:
    found = [
        duplicates.identical_of_other_label(hashes, labels, limit)
        for labels, limit in evidence.compared_labels
    ]
    pairs = Pairs(*map(np.concatenate, zip(*(own for own, _ in found), strict=True)))
    _, places = np.unique(np.stack([pairs.first, pairs.second]), axis=1, return_index=True)
    return pairs.where(np.sort(places)), np.any([mask for _, mask in found], axis=0)


def _find_copies(evidence: Evidence, hashes: np.ndarray, near: Pairs) -> Duplicates:
    """List training examples that are copies of one of the same label, or look like one."""
    identical = duplicates.identical_within(evidence.contents_with_labels(hashes))
    num_identical = len(identical.first)
    num_near = len(np.setdiff1d(np.concatenate([near.first, near.second]), identical.second))
    count = num_identical + num_near
    severity = Severity.LOOK if num_identical >= MANY_COPIES * evidence.num_train else Severity.KNOW
    return Duplicates(
        severity=severity if count else Severity.FINE,
        title=_copies_title(num_identical, num_near),
        summary=(
            "Compare them: copies count twice in training, and belong on one side of a split into training and "
            "validation."
            if count and not num_identical
            else f"{num_identical:,} are copies of another one with the same label, which counts twice in training; "
            f"{num_near:,} look like another one of their class. Where copies are not meant, drop them; keep them "
            "out of a split into training and validation."
            if count
            else "No two training examples of one label have the same inputs, and none look alike."
        ),
        count=count,
        share=count / evidence.num_train,
        num_identical=num_identical,
        pairs=_pairs(evidence, identical, near, "train"),
    )


def _severity(share_identical: float, count: int, warn_from: float, of_alike: Severity) -> Severity:
    """Return the severity of identical pairs, or the one of pairs that look alike where there are no others."""
    if count and not share_identical:
        return of_alike
    return severity_of(share_identical, warn_from=warn_from)


def _leak_title(num_identical: int, num_near: int) -> str:
    examples = "test example is" if num_identical == 1 else "test examples are"
    alike = "looks" if num_near == 1 else "look"
    if num_identical and num_near:
        return f"{num_identical:,} {examples} in the training set, {num_near:,} more {alike} like an example there"
    if num_identical:
        return f"{num_identical:,} {examples} in the training set"
    if num_near:
        noun = "example" if num_near == 1 else "examples"
        return f"No test example is in the training set; {num_near:,} {noun} {alike} like one there"
    return "No test example is in the training set"


def _copies_title(num_identical: int, num_near: int) -> str:
    if num_identical:
        more = f", {num_near:,} more look like one" if num_near else ""
        verb = "example is a copy" if num_identical == 1 else "examples are copies"
        return f"{num_identical:,} training {verb} of another one of the same label{more}"
    if num_near:
        return f"{num_near:,} training examples look like another one of their label; none is identical"
    return "No training example is a copy of another one of its label"


def _conflict_title(num_identical: int, num_near: int, other: str) -> str:
    if num_identical:
        more = f", {num_near:,} more look like one" if num_near else ""
        verb = "example has" if num_identical == 1 else "examples have"
        return f"{num_identical:,} training {verb} the same inputs as one {other}{more}"
    if num_near:
        return f"{num_near:,} training examples look like one {other}; none is identical"
    return f"No training example has the inputs of one {other}"


def _pairs(
    evidence: Evidence, identical: Pairs, near: Pairs, split: Literal["train", "test"]
) -> tuple[SimilarPair, ...]:
    """Return the pairs to show, identical ones first; `split` is that of the first of each."""
    shown = [
        (pairs, place) for pairs in (identical, near) for place in range(min(len(pairs.first), NUM_PAIRS))
    ]
    return tuple(
        SimilarPair(
            evidence.reference(split, int(pairs.first[place])),
            evidence.reference("train", int(pairs.second[place])),
            float(pairs.similarity[place]),
            pairs is identical,
            bool(pairs.mirrored[place]),
        )
        for pairs, place in shown[:NUM_PAIRS]
    )
