"""Findings about examples that occur twice: in both splits, or in training with different labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from deel_dualview.auditing import duplicates
from deel_dualview.auditing.duplicates import Pairs
from deel_dualview.auditing.evidence import Evidence, severity_of
from deel_dualview.auditing.reading import SplitContents
from deel_dualview.labels import LabelIssues
from deel_dualview.report.findings import ConflictingDuplicates, Leaks, Severity, SimilarPair

NUM_PAIRS = 24
SUSPICIOUS, MAX_SUSPECTS = -1.0, 5000
"""Near duplicates of another label are looked for from this label score on: of equal inputs with two labels, one has a
score of about 0 at least."""
MANY_LEAKS = 0.01
"""From this share of leaked test examples on, the finding is a warning."""

Shown = Mapping[tuple[str, int], Any]


class Candidates(NamedTuple):
    """Pairs found by hashes (certain) and by sketches (to be confirmed by the inputs).

    `across` pairs a test with a training example, `within` two training examples of different labels;
    `conflicting` is a mask (n,) of training examples whose very content has several labels.
    """

    identical_across: Pairs
    near_across: Pairs
    identical_within: Pairs
    near_within: Pairs
    conflicting: np.ndarray


def find_candidates(
    train: SplitContents, test: SplitContents, train_labels: np.ndarray, *, issues: LabelIssues
) -> Candidates:
    """Look for examples that occur twice, without reading an input again.

    Args:
        train: contents of the n training examples.
        test: contents of the test examples.
        train_labels: classes, shape (n,).
        issues: of the training labels.
    """
    identical = duplicates.identical_across(train.hashes, test.hashes)
    near = duplicates.near_across(train.sketches, test.sketches)
    near = _first_few(near, ~np.isin(near.first, identical.first))
    within, conflicting = duplicates.identical_of_other_label(train.hashes, train_labels)
    near_within = duplicates.near_of_other_label(train.sketches, train_labels, _suspects(issues))
    different = train.hashes[near_within.first] != train.hashes[near_within.second]
    return Candidates(identical, near, within, _first_few(near_within, different), conflicting)


def indices_to_read(candidates: Candidates) -> tuple[set[int], set[int]]:
    """Return the training and the test indices whose inputs are shown or compared."""
    train: set[int] = set()
    test: set[int] = set()
    for pairs in (candidates.identical_across, candidates.near_across):
        limit = duplicates.MAX_CONFIRMED if pairs is candidates.near_across else NUM_PAIRS
        test.update(map(int, pairs.first[:limit]))
        train.update(map(int, pairs.second[:limit]))
    train.update(map(int, np.concatenate([part[:NUM_PAIRS] for part in candidates.identical_within[:2]])))
    train.update(map(int, np.concatenate(candidates.near_within[:2])))
    return train, test


def find_leaks(evidence: Evidence, candidates: Candidates, shown: Shown) -> Leaks:
    """List test examples that are in the training set too, or almost."""
    near = _confirm(candidates.near_across, "test", shown)
    num_identical = len(candidates.identical_across.first)
    count = num_identical + len(near.first)
    share = count / evidence.num_test
    pairs = [
        *_pairs(evidence, candidates.identical_across, "test", is_identical=True),
        *_pairs(evidence, near, "test", is_identical=False),
    ]
    return Leaks(
        severity=_severity(num_identical / evidence.num_test, count, MANY_LEAKS, Severity.KNOW),
        title=_leak_title(num_identical, len(near.first)),
        summary=_summary(num_identical, len(near.first), evidence.num_test)
        if count
        else "No test example has the inputs of a training example, and none looks like one.",
        count=count,
        share=share,
        num_identical=num_identical,
        pairs=tuple(pairs[:NUM_PAIRS]),
    )


def find_conflicting_duplicates(
    evidence: Evidence, candidates: Candidates, shown: Shown
) -> ConflictingDuplicates:
    """List training examples that have the same inputs, or almost, as one of another label."""
    near = _confirm(candidates.near_within, "train", shown)
    num_identical = int(candidates.conflicting.sum())
    in_near = np.unique(np.concatenate([near.first, near.second]))
    num_near = int((~candidates.conflicting[in_near]).sum())
    count = num_identical + num_near
    share = count / evidence.num_train
    pairs = [
        *_pairs(evidence, candidates.identical_within, "train", is_identical=True),
        *_pairs(evidence, near, "train", is_identical=False),
    ]
    return ConflictingDuplicates(
        severity=_severity(num_identical / evidence.num_train, count, 0, Severity.LOOK),
        title=_conflict_title(num_identical, num_near),
        summary=(
            f"{num_identical:,} have exactly the same inputs as one of another label: at most one label of such a pair "
            f"can be right. {num_near:,} look like one of another label: judge by eye, for examples of two classes may "
            "look alike."
            if count
            else "Training examples with the same inputs have the same label, and so have those that look alike."
        ),
        count=count,
        share=share,
        num_identical=num_identical,
        pairs=tuple(pairs[:NUM_PAIRS]),
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


def _conflict_title(num_identical: int, num_near: int) -> str:
    if num_identical:
        more = f", {num_near:,} more look like one" if num_near else ""
        verb = "example has" if num_identical == 1 else "examples have"
        return f"{num_identical:,} training {verb} the same inputs as one of another label{more}"
    if num_near:
        return f"{num_near:,} training examples look like one of another label; none is identical"
    return "No training example has the inputs of one of another label"


def _suspects(issues: LabelIssues) -> np.ndarray:
    """Return positions by decreasing label score."""
    order = issues.order[:MAX_SUSPECTS]
    return order[issues.scores[order] > SUSPICIOUS]


def _first_few(pairs: Pairs, keep: np.ndarray) -> Pairs:
    return Pairs(*(part[keep][: duplicates.MAX_CONFIRMED] for part in pairs))


def _confirm(pairs: Pairs, split: Literal["train", "test"], shown: Shown) -> Pairs:
    """Keep the pairs whose inputs themselves are almost identical, most similar first."""
    exact = np.array(
        [
            duplicates.correlation(shown[split, int(first)], shown["train", int(second)])
            for first, second in zip(pairs.first, pairs.second, strict=True)
        ],
        np.float64,
    )
    order = np.argsort(-exact, kind="stable")
    order = order[exact[order] >= duplicates.NEAR]
    return Pairs(pairs.first[order], pairs.second[order], exact[order])


def _pairs(
    evidence: Evidence, pairs: Pairs, split: Literal["train", "test"], *, is_identical: bool
) -> list[SimilarPair]:
    return [
        SimilarPair(
            evidence.reference(split, int(first)),
            evidence.reference("train", int(second)),
            float(min(similarity, 1.0)),
            is_identical,
        )
        for first, second, similarity in list(zip(*pairs, strict=True))[:NUM_PAIRS]
    ]


def _summary(num_identical: int, num_near: int, num_test: int) -> str:
    cap = "at least " if num_near >= duplicates.MAX_CONFIRMED else ""
    return (
        f"Of {num_test:,} test examples {num_identical:,} have exactly the inputs of a training example: the accuracy "
        f"on them says nothing about new ones. {cap.capitalize()}{num_near:,} look like one: judge by eye."
    )
