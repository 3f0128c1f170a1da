"""Arithmetic of the benchmark of label issues: rankings, counts, and scores against the best baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from sklearn.metrics import average_precision_score, roc_auc_score

AREA_MARGIN, WORST_AREA_MARGIN, PRECISION_MARGIN = 0.01, 0.03, 0.02
"""By how much a score may be below the best baseline of a setting before that counts as a miss."""
METRICS = ("area", "average_precision", "precision")
"""ROC-AUC; average precision; precision among as many as are wrong."""
# A difference of two rounded figures that is a margin exactly is none above it.
_ROUNDING = 1e-9


def rank_metrics(scores: np.ndarray, is_wrong: np.ndarray) -> dict[str, float]:
    """Return how well scores (n,) rank wrong labels: `METRICS`; nothing where no label is wrong."""
    if not np.isfinite(scores).all():
        raise ValueError(f"Scores must be finite. Received: {(~np.isfinite(scores)).sum()} that are not.")
    if not is_wrong.any():
        return {}
    return {
        "area": round(float(roc_auc_score(is_wrong, scores)), 4),
        "average_precision": round(float(average_precision_score(is_wrong, scores)), 4),
        "precision": round(precision_at(scores, is_wrong, int(is_wrong.sum())), 4),
    }


def precision_at(scores: np.ndarray, is_wrong: np.ndarray, size: int) -> float:
    """Return the share of wrong labels among the `size` largest scores, on average over the orders of ties."""
    if size == 0:
        return float("nan")
    last = np.sort(scores)[::-1][size - 1]
    above, tied = scores > last, scores == last
    return float((is_wrong[above].sum() + is_wrong[tied].mean() * (size - above.sum())) / size)


def flag_metrics(flagged: np.ndarray, is_wrong: np.ndarray) -> dict[str, float | None]:
    """Return how many are flagged, and the precision and recall of that, None where undefined."""
    right, flags, wrong = int((flagged & is_wrong).sum()), int(flagged.sum()), int(is_wrong.sum())
    return {
        "flagged": flags,
        "precision": round(right / flags, 4) if flags else None,
        "recall": round(right / wrong, 4) if wrong else None,
    }


def within_factor(estimate: float, truth: float, factor: float = 2.0) -> bool:
    """Whether an estimate is at least 1 / `factor` and at most `factor` of the truth."""
    return truth / factor <= estimate <= truth * factor


def best_of(scores: Mapping[str, Mapping[str, float]], names: Iterable[str], metric: str) -> float:
    """Return the best of some scores of a setting."""
    return max(scores[name][metric] for name in names)


def shortfalls(
    settings: Sequence[Mapping[str, Any]], name: str, references: Sequence[str], metric: str
) -> np.ndarray:
    """Return by how much a score is above (below: negative) the best reference in each setting."""
    return np.array(
        [
            setting["scores"][name][metric] - best_of(setting["scores"], references, metric)
            for setting in settings
        ]
    )


def num_missed(differences: np.ndarray, margin: float) -> int:
    """Return how many differences are below -margin."""
    return int((differences < -margin - _ROUNDING).sum())


def mean_ranks(settings: Sequence[Mapping[str, Any]], names: Sequence[str], metric: str) -> dict[str, float]:
    """Return the mean rank of each score over settings, 1 for the best; equal values share their ranks."""
    values = np.array([[setting["scores"][name][metric] for name in names] for setting in settings])
    ranks = scipy.stats.rankdata(-values, axis=1).mean(axis=0)
    return dict(zip(names, ranks.tolist(), strict=True))
