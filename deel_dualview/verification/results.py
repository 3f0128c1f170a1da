"""What removals were predicted to change, and what they did change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import scipy.stats

from deel_dualview._checks import check_choice, require
from deel_dualview._summaries import probability_text, to_html, to_text

if TYPE_CHECKING:
    import pandas as pd

Group = Literal["proponents", "opponents", "random"]
GROUPS: tuple[Group, ...] = ("proponents", "opponents", "random")
FEWEST_QUERIES = 5
"""A rank correlation over fewer evaluated examples says nothing."""
_NUM_RESAMPLES = 1000
_MOST_SENTENCES = 5


class State(NamedTuple):
    """The explained output of an evaluated example by one model.

    Attributes:
        output: the logit of the explained class or label, or the predicted number.
        log_probability: of the explained class or label; None of a predicted number.
        prediction: the class of the largest logit; None of a model that is no classifier.
    """

    output: float
    log_probability: float | None
    prediction: int | None

    @property
    def probability(self) -> float | None:
        """Probability of the explained class or label; None of a predicted number."""
        return None if self.log_probability is None else math.exp(self.log_probability)

    @property
    def shown(self) -> float:
        """What a reader is shown: the probability, or the predicted number."""
        return self.output if self.probability is None else self.probability

    @property
    def value(self) -> float:
        """What influence is compared with: the log-probability, or the predicted number."""
        return self.output if self.log_probability is None else self.log_probability

    def __str__(self) -> str:
        return f"{self.output:.4g}" if self.probability is None else probability_text(self.probability)


class Correlation(NamedTuple):
    """Spearman's rank correlation of predicted and actual changes.

    Attributes:
        value: the correlation; NaN where there are too few removals, or all changes are the same.
        interval: 95 % bootstrap interval, over evaluated examples; NaN where there are too few.
        num_queries: evaluated examples.
        num_removals: groups of training examples that were removed.
    """

    value: float
    interval: tuple[float, float]
    num_queries: int
    num_removals: int

    def __str__(self) -> str:
        if math.isnan(self.value):
            few = self.num_queries < FEWEST_QUERIES
            return (
                f"too few predictions ({self.num_queries})"
                if few
                else "no order: all changes are the same, the predicted or the actual ones"
            )
        low, high = self.interval
        return f"{self.value:.2f} ({low:.2f} to {high:.2f}; {self.num_removals} removals)"


@dataclass(frozen=True)
class Share:
    """A share of evaluated examples.

    Attributes:
        count: examples that have the property.
        total: examples that were looked at.
        interval: exact 95 % interval of the share (Clopper and Pearson); from 0 to 1 without any.
    """

    count: int
    total: int
    interval: tuple[float, float]

    @property
    def value(self) -> float:
        """The share; NaN without any example."""
        return self.count / self.total if self.total else math.nan

    def __str__(self) -> str:
        if not self.total:
            return "of none"
        low, high = self.interval
        return f"{self.count} of {self.total} ({low:.0%} to {high:.0%})"


@dataclass(frozen=True)
class Removal:
    """A group of training examples that was removed, and what became of one prediction.

    Attributes:
        query: position of the evaluated example.
        group: its strongest proponents, its strongest opponents, or random training examples.
        removed: their positions in the training set.
        explained: the class, label or number that is explained.
        predicted: sum of their influence values: positive where the removal is predicted to hurt this output.
        before: by the model trained again on everything.
        after: by the model trained again without them.
    """

    query: int
    group: Group
    removed: tuple[int, ...]
    explained: int
    predicted: float
    before: State
    after: State

    @property
    def actual(self) -> float:
        """Fall of the log-probability, which is the increase of the loss; of a predicted number its own fall."""
        return self.before.value - self.after.value

    @property
    def is_flipped(self) -> bool:
        """Whether another class is predicted without them."""
        return self.before.prediction != self.after.prediction


@dataclass(frozen=True, repr=False)
class Verification:
    """Predicted changes beside those that training again has made; what `verify` returns.

    The model before each removal is the one trained again on everything, not the model that is explained: only so is
    the difference that of the removed examples.

    Attributes:
        removals: three for each evaluated example, one where it has no proponents, or no opponents.
        k: examples in a group, at most.
        method: class of the calculator.
        retrained: `"last layer"` or `"network"`.
        penalty: lambda of the last layer that was trained again; None of a network.
        agreement: share of the evaluated examples for which the model trained again on everything predicts what the
            explained model does; None where it is no classifier.
        difference: mean absolute difference of the explained probability (of the number, in a regression) between
            these two models.
        num_trainings: how often was trained.
        seconds: all of it took.
        num_train: size of the training set.
    """

    removals: tuple[Removal, ...]
    k: int
    method: str
    retrained: str
    penalty: float | None
    agreement: float | None
    difference: float
    num_trainings: int
    seconds: float
    num_train: int

    @property
    def rank_correlation(self) -> Correlation:
        """Rank correlation of predicted and actual changes, over all removals."""
        return self.correlation()

    def correlation(self, group: Group | None = None) -> Correlation:
        """Return the rank correlation over all removals, or over those of one group.

        Over all removals it is mostly about telling proponents, random examples and opponents apart; over the
        proponents alone, about which predictions depend on theirs most.

        Args:
            group: `"proponents"`, `"opponents"` or `"random"`; all by default.

        Raises:
            ValueError: another group.
        """
        if group is not None:
            check_choice("group", group, GROUPS)
        return _correlation([item for item in self.removals if group in (None, item.group)])

    @property
    def above_random(self) -> Share:
        """Predictions that lose more without their strongest proponents than without random training examples.

        Chance gives a half. It compares removals of one prediction with each other, so that it does not depend, as
        the rank correlation over all removals does, on which predictions change easily.
        """
        actual = {(item.query, item.group): item.actual for item in self.removals}
        pairs = [
            (actual[query, "proponents"], actual[query, "random"])
            for query, group in actual
            if group == "proponents" and (query, "random") in actual
        ]
        count = sum(named > drawn for named, drawn in pairs)
        if not pairs:
            return Share(0, 0, (0.0, 1.0))
        low, high = scipy.stats.binomtest(count, len(pairs)).proportion_ci(method="exact")
        return Share(count, len(pairs), (float(low), float(high)))

    @property
    def share_flipped(self) -> float:
        """Share of the predictions that are others without their strongest proponents; NaN without any."""
        flips = [item.is_flipped for item in self.removals if item.group == "proponents"]
        return float(np.mean(flips)) if flips else math.nan

    def sentence(self, query: int, class_names: Sequence[str] | None = None) -> str:
        """Return in one sentence what happened to a prediction without its proponents, and without random examples.

        Args:
            query: position of the evaluated example.
            class_names: by which the class is written; its number by default.

        Raises:
            ValueError: none of that position was verified.
        """
        own = {item.group: item for item in self.removals if item.query == query}
        if not own:
            known = sorted({item.query for item in self.removals})
            raise ValueError(f"These evaluated examples were verified: {known}. Received: query={query!r}.")
        explained = next(iter(own.values())).explained
        require(
            class_names is None or len(class_names) > explained,
            "`class_names` must name every class.",
            {"class_names": class_names, "explained": explained},
        )
        return _sentence(own, class_names)

    def to_frame(self) -> pd.DataFrame:
        """Return one row for each removal; pandas is imported here."""
        import pandas as pd

        return pd.DataFrame([_row(item) for item in self.removals])

    def summary(self) -> dict[str, str]:
        """Return what stands in the text and in the table of a notebook, by name."""
        queries = sorted({item.query for item in self.removals})
        trained = f"{self.retrained}, {self.num_trainings} times in {self.seconds:.1f} s"
        if self.penalty is not None:
            trained += f", penalty {self.penalty:.2g}"
        agrees = f"off by {self.difference:.3g} in the mean"
        if self.agreement is not None:
            agrees = f"predicts the same for {self.agreement:.0%}, {agrees}"
        shown = {f"prediction {query}": self.sentence(query) for query in queries[:_MOST_SENTENCES]}
        if len(queries) > _MOST_SENTENCES:
            shown["..."] = f"{len(queries)} predictions in all: to_frame() has them"
        return {
            "trained again": trained,
            "on everything, against the model": agrees,
            "lose more without proponents than without random examples": str(self.above_random),
            "rank correlation of predicted and actual": str(self.rank_correlation),
            **shown,
        }

    def __repr__(self) -> str:
        return to_text(f"Verification of {self.method}", self.summary())

    def _repr_html_(self) -> str:
        return to_html(f"Verification of {self.method}", self.summary())


def _correlation(removals: list[Removal]) -> Correlation:
    queries = sorted({item.query for item in removals})
    counts, nothing = (len(queries), len(removals)), (math.nan, math.nan)
    if len(queries) < FEWEST_QUERIES:
        return Correlation(math.nan, nothing, *counts)
    by_query = [
        np.array([(one.predicted, one.actual) for one in removals if one.query == query]) for query in queries
    ]
    value = rank_correlation(np.concatenate(by_query))
    if math.isnan(value):
        return Correlation(value, nothing, *counts)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(queries), (_NUM_RESAMPLES, len(queries)))
    found = [rank_correlation(np.concatenate([by_query[row] for row in rows])) for rows in drawn]
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return Correlation(value, (float(low), float(high)), *counts)


def rank_correlation(pairs: np.ndarray) -> float:
    """Return Spearman's rank correlation of two columns (n, 2), NaN where one of them is constant."""
    ranks = scipy.stats.rankdata(pairs, axis=0)
    ranks -= ranks.mean(axis=0)
    norms = np.linalg.norm(ranks, axis=0)
    return float(ranks[:, 0] @ ranks[:, 1] / norms.prod()) if norms.all() else math.nan


def _sentence(own: dict[Group, Removal], class_names: Sequence[str] | None) -> str:
    first = own.get("proponents") or own.get("opponents") or own["random"]
    before, after, num = first.before, first.after, len(first.removed)
    name = str(first.explained) if class_names is None else class_names[first.explained]
    subject = f"output {name}" if before.probability is None else f"the probability of class {name}"
    word = {"proponents": "training example", "opponents": "opponent", "random": "random training example"}[
        first.group
    ]
    examples = f"this {word}" if num == 1 else f"these {num} {word}s"
    if str(after) == str(before):
        change = f"leaves {subject} at {before}"
    else:
        change = f"{'lowers' if after.value < before.value else 'raises'} {subject} from {before} to {after}"
    sentence = f"Removing {examples} {change}"
    if (drawn := own.get("random")) is not None and drawn is not first:
        count = "a random one" if len(drawn.removed) == 1 else f"{len(drawn.removed)} random ones"
        sentence += f"; {count}: {drawn.after}"
    return f"{sentence}."


def _row(item: Removal) -> dict[str, object]:
    row: dict[str, object] = {
        "query": item.query,
        "group": item.group,
        "removed": list(item.removed),
        "explained": item.explained,
        "predicted": item.predicted,
        "actual": item.actual,
        "output_before": item.before.output,
        "output_after": item.after.output,
    }
    if item.before.probability is not None:
        row |= {"probability_before": item.before.probability, "probability_after": item.after.probability}
    if item.before.prediction is not None:
        row |= {"prediction_before": item.before.prediction, "prediction_after": item.after.prediction}
    return row
