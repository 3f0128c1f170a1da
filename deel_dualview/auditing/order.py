"""Whether the order of a set is random: its examples are then no likelier to stand beside those they resemble."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import scipy.stats
from sklearn.neighbors import NearestNeighbors

from deel_dualview.linalg.rows import Rows
from deel_dualview.report.findings import Severity
from deel_dualview.report.input_findings import InputProblem
from deel_dualview.report.wording import joined

CHANCE = 0.001
"""A set in random order is said not to be so seldom by each of the three tests."""
NUM_PERMUTATIONS = 999
"""The fewest by which a p-value can be as small as CHANCE."""
NUM_QUERIES, MOST_REFERENCES, NUM_NEIGHBOURS = 500, 20_000, 10
"""Neighbours of 500 examples are enough to see any order that matters."""
LEAST_EXCESS, LEAST_ASSOCIATION, LEAST_RUNS = 0.05, 0.15, 0.1
"""Below these an order is real in large sets, and of no consequence. Distance of the two distributions (Kolmogorov and
Smirnov); Cramer's V; how far equal labels side by side are from chance (0) towards a sorted set (1)."""
NUM_BLOCKS = 10
_LEAST_EXAMPLES = 50


class OrderTest(NamedTuple):
    """How far an order is from a random one (`effect`, 0 for none), and how seldom chance alone goes so far."""

    effect: float
    chance: float


def find_order(rows: Rows, labels: np.ndarray | None, split: str) -> Iterator[InputProblem]:
    """Yield the problem that a set is not in random order.

    Three tests: nearest neighbours in content stand nearer to each other than others do, classes are not spread evenly
    over the set, and equal labels stand side by side.

    Args:
        rows: contents of the examples in their order, shape (n, d).
        labels: shape (n,), or None.
        split: what the set is called.
    """
    if len(rows) < _LEAST_EXAMPLES:
        return
    reasons = []
    if _is_found(found := neighbours_test(rows), LEAST_EXCESS):
        reasons.append(f"examples that look alike stand near each other (by {found.effect:.2f} of 1)")
    if labels is not None and len(np.unique(labels)) > 1:
        if _is_found(found := blocks_test(labels), LEAST_ASSOCIATION):
            reasons.append(f"classes are spread unevenly over it (Cramér's V {found.effect:.2f})")
        if _is_found(found := runs_test(labels), LEAST_RUNS):
            reasons.append(f"equal labels stand side by side ({found.effect:.0%} of the way to sorted)")
    if reasons:
        yield InputProblem(
            kind="order",
            severity=Severity.KNOW,
            title=f"The {split} set is not in random order",
            advice=(
                f"In it {joined(reasons)}. Shuffle before you split off a set, and in training. A split by time, or a "
                "set sorted on purpose, is fine."
            ),
            count=len(rows),
        )


def neighbours_test(rows: Rows, seed: int = 0) -> OrderTest:
    """Test whether nearest neighbours are nearer in position than others, against permutations of the positions.

    The effect is the largest distance by which the distribution of |i - j| over pairs of neighbours lies above that
    over all pairs: 0 for a random order, near 1 for one sorted by content.

    Args:
        rows: shape (n, d).
        seed: of the queries and permutations.
    """
    rng = np.random.default_rng(seed)
    # In random order: neighbours at equal distances are then found at any position.
    references = rng.permutation(len(rows))[:MOST_REFERENCES]
    queries = np.arange(min(NUM_QUERIES, len(references)))
    count = min(NUM_NEIGHBOURS + 1, len(references))
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(rows[references])
    neighbours = search.kneighbors(rows[references[queries]], return_distance=False)
    first, second = np.repeat(queries, count), neighbours.reshape(-1)
    first, second = first[different := first != second], second[different]

    def excess(positions: np.ndarray) -> float:
        apart = np.sort(np.abs(positions[first] - positions[second])) / len(rows)
        # Two uniform positions are at most t apart with probability 2 t - t^2.
        return float((np.arange(1, len(apart) + 1) / len(apart) - apart * (2 - apart)).max())

    found = excess(references)
    by_chance = [excess(rng.permutation(references)) for _ in range(NUM_PERMUTATIONS)]
    as_far = 1 + sum(other >= found for other in by_chance)
    return OrderTest(found - float(np.median(by_chance)), as_far / (1 + NUM_PERMUTATIONS))


def blocks_test(labels: np.ndarray) -> OrderTest:
    """Test whether classes are as frequent in each tenth of the set: chi-squared, and Cramer's V without its bias.

    Source: Bergsma (2013), "A bias-correction for Cramer's V and Tschuprow's T", equation 2.
    """
    _, classes = np.unique(labels, return_inverse=True)
    num_blocks = NUM_BLOCKS
    blocks = np.arange(len(classes)) * num_blocks // len(classes)
    table = np.bincount(classes * num_blocks + blocks, minlength=(classes.max() + 1) * num_blocks)
    table = table.reshape(-1, num_blocks)
    found = scipy.stats.chi2_contingency(table)
    n, (r, c) = len(classes), table.shape
    phi = max(0.0, found.statistic / n - (r - 1) * (c - 1) / (n - 1))
    sides = [side - (side - 1) ** 2 / (n - 1) for side in (r, c)]
    return OrderTest(float(np.sqrt(phi / max(min(sides) - 1, 1e-12))), float(found.pvalue))


def runs_test(labels: np.ndarray) -> OrderTest:
    """Test whether more labels equal the one after them than in a random order, by the normal approximation.

    The effect is their number, from 0 as many as by chance to 1 in a sorted set.
    """
    counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
    n = float(len(labels))
    equal = float((labels[1:] == labels[:-1]).sum())
    two, three, four = (_falling(counts, order) for order in (2, 3, 4))
    mean = two.sum() / n
    # Pairs of neighbours share one example (2 (n - 2) ordered pairs of pairs), or none.
    chained = 2 * three.sum() / (n * (n - 1))
    apart = (two.sum() ** 2 - (two**2).sum() + four.sum()) / (n * (n - 1))
    deviation = np.sqrt(max(mean + chained + apart - mean**2, 1e-12))
    largest = n - len(counts)
    effect = (equal - mean) / max(largest - mean, 1e-12)
    return OrderTest(float(effect), float(scipy.stats.norm.sf((equal - 0.5 - mean) / deviation)))


def _falling(counts: np.ndarray, order: int) -> np.ndarray:
    """Return n (n - 1) ... of `order` factors."""
    return np.prod([counts - place for place in range(order)], axis=0)


def _is_found(test: OrderTest, least: float) -> bool:
    return test.chance <= CHANCE and test.effect >= least
