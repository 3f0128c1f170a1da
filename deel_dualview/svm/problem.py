"""A checked training problem: features, labels, number of classes and penalty."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_count, check_positive, require
from deel_dualview.linalg.rows import LazyRows
from deel_dualview.svm.features import Features, check_finite_rows

# Rows of a chunk of a pass: large enough to amortise a call, small enough for its float64 copy to stay
# in cache.
CHUNK = 2048


class Problem(NamedTuple):
    """One Crammer-Singer problem.

    Attributes:
        features: F, shape (n, d), float32; shared by all penalties.
        labels: y, shape (n,), int32.
        num_classes: c.
        K: penalty of one unit of slack of an example of mass 1.
        masses: positive, shape (n,), float64, None where all are 1: example i has the penalty m_i K, and m_i lambda_i
            in the place of lambda_i, so that all lambda lie on the simplex of size K.
    """

    features: Features
    labels: np.ndarray
    num_classes: int
    K: float
    masses: np.ndarray | None = None

    @property
    def num_examples(self) -> int:
        """Number of rows n."""
        return len(self.labels)

    @property
    def total_squared_norm(self) -> float:
        """Sum of ||f||^2 over the rows, times their masses."""
        return float(self.weighted(self.features.squared_norms).sum(dtype=np.float64))

    @property
    def mean_mass(self) -> float:
        """Mean of the masses."""
        return 1.0 if self.masses is None else float(self.masses.mean())

    @property
    def penalties(self) -> np.ndarray:
        """K_i = K m_i, shape (n,) float64."""
        return self.weighted(np.full(self.num_examples, self.K, np.float64))

    def weighted(self, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return values (b, ...) of some rows times their masses."""
        if self.masses is None:
            return values
        return values * self.masses[rows].reshape(-1, *[1] * (values.ndim - 1))

    def masses_of(self, rows: np.ndarray) -> tf.Tensor | None:
        """Return the masses of some rows as a column (b, 1), None where all are 1."""
        return None if self.masses is None else tf.constant(self.masses[rows, np.newaxis])

    def subset(self, rows: np.ndarray) -> Problem:
        """Return the problem of some rows."""
        return self._replace(
            features=self.features.subset(rows),
            labels=self.labels[rows],
            masses=None if self.masses is None else self.masses[rows],
        )


def check_problem(features: Any, labels: Any, num_classes: int, K: float) -> Problem:
    """Validate and convert what the user handed over; the inputs are never modified.

    Raises:
        TypeError: `num_classes` is not an integer, `K` not a number or the labels not integers.
        ValueError: shapes, values or ranges are unusable.
    """
    K = check_positive("K", K)
    num_classes = check_count("num_classes", num_classes)
    require(num_classes >= 2, "At least two classes are needed to separate.", {"num_classes": num_classes})
    if isinstance(features, LazyRows):
        check_finite_rows(features)
    else:
        features = check_features(features)
    return Problem(Features(features), _check_labels(labels, len(features), num_classes), num_classes, K)


def check_features(features: Any) -> np.ndarray:
    """Return the features as a float32 matrix (n, d); a copy only where their type differs.

    Raises:
        ValueError: they are no matrix of real numbers that are finite in float32.
    """
    rows = np.asarray(features)
    require(
        rows.ndim == 2 and rows.size > 0,
        "`features` must be a matrix with one row an example, (n, d) with n >= 1 and d >= 1.",
        {"shape": rows.shape},
    )
    require(
        np.issubdtype(rows.dtype, np.number) and not np.issubdtype(rows.dtype, np.complexfloating),
        "`features` must hold real numbers.",
        {"dtype": str(rows.dtype)},
    )
    with np.errstate(over="ignore"):
        rows = rows.astype(np.float32, copy=False)
    check_finite_rows(rows)
    return rows


def check_weights(sample_weight: Any, num_examples: int) -> np.ndarray:
    """Return sample weights as (n,), float64; ones for None.

    Raises:
        ValueError: they are not one number an example, not finite or negative.
    """
    if sample_weight is None:
        return np.ones(num_examples)
    weights = np.asarray(sample_weight, np.float64)
    require(
        weights.shape == (num_examples,),
        f"`sample_weight` must hold one number an example, shape ({num_examples},).",
        {"shape": weights.shape},
    )
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    require(len(bad) == 0, "`sample_weight` must be finite and not negative.", {"rows": bad.tolist()})
    return weights


def _check_labels(labels: Any, num_examples: int, num_classes: int) -> np.ndarray:
    classes = np.asarray(labels)
    require(
        classes.shape == (num_examples,),
        f"`labels` must hold one class an example, shape ({num_examples},); take the argmax of one-hot rows.",
        {"shape": classes.shape},
    )
    if not np.issubdtype(classes.dtype, np.integer):
        raise TypeError(f"`labels` must be integers. Received: dtype={classes.dtype}.")
    outside = np.flatnonzero((classes < 0) | (classes >= num_classes))
    require(
        len(outside) == 0,
        f"`labels` must lie in 0 .. {num_classes - 1}: raise `num_classes` or repair these rows.",
        {"rows": outside.tolist(), "labels": classes[outside].tolist()},
    )
    _warn_about_missing(classes, num_classes)
    return classes.astype(np.int32)


def _warn_about_missing(classes: np.ndarray, num_classes: int) -> None:
    missing = np.flatnonzero(np.bincount(classes, minlength=num_classes) == 0)
    if len(missing):
        warnings.warn(
            "Some classes have no example: nothing can ever support them. "
            f"Received: num_classes={num_classes}, classes without examples={missing.tolist()[:10]}.",
            UserWarning,
            stacklevel=5,
        )
