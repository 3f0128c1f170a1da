"""Surrogates of models that are no classifiers: one support vector machine an output, in the units of the outputs."""

import warnings
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import scipy.sparse

from deel_dualview._checks import describe, require
from deel_dualview.models.objectives import (
    Huber,
    IndependentSigmoids,
    Objective,
    SoftmaxCrossEntropy,
    SquaredError,
)
from deel_dualview.svm import DualSVMSolver, PerOutputSVMSolution, PerOutputSVMSolver
from deel_dualview.typing import Kernel

SPARSE_TOTAL_PENALTY = 600.0
"""Default of K n where features are not tempered: few support vectors, and a surrogate that agrees with the model."""
REGRESSION_TOTAL_PENALTY = 300.0
"""Default of K n of a regression; chosen and judged in `benchmarks/results/other-heads.json`."""
INSENSITIVITY = 0.3
"""Half width of the zone without loss, in standard deviations of the labels: examples inside have no influence."""


class OutputSurrogate(NamedTuple):
    """A solution in the units of the outputs, and what is added to them.

    Attributes:
        solution: its coefficients and weights are those of the outputs.
        offset: the mean of the labels of a regression, zero of independent labels, shape (c,).
    """

    solution: PerOutputSVMSolution
    offset: np.ndarray


def check_solver(solver: object) -> None:
    """Refuse what is no solver.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(solver, DualSVMSolver | PerOutputSVMSolver | None):
        raise TypeError(
            describe(
                "`solver` must be a DualSVMSolver, for instance DualSVMSolver(tolerance=1e-6), or a PerOutputSVMSolver "
                "where the model is no classifier.",
                {"solver": solver},
            )
        )


def solver_of(
    objective: Objective, solver: DualSVMSolver | PerOutputSVMSolver | None
) -> DualSVMSolver | PerOutputSVMSolver:
    """Return the solver that is given, or by default one of the kind that the model needs.

    Raises:
        TypeError: it is of the other kind.
        ValueError: the objective has no surrogate: it is a custom loss.
    """
    is_classifier = isinstance(objective, SoftmaxCrossEntropy)
    require(
        is_classifier or isinstance(objective, IndependentSigmoids | SquaredError | Huber),
        "DualView has surrogates of classifiers, independent labels and regressions; of a custom loss take "
        "RepresenterPointL2 or GradDot.",
        {"objective": objective},
    )
    kind = DualSVMSolver if is_classifier else PerOutputSVMSolver
    if solver is not None and not isinstance(solver, kind):
        raise TypeError(
            describe(
                f"The surrogate of this model needs a {kind.__name__}.",
                {"objective": objective, "solver": solver},
            )
        )
    return solver or kind()


def default_kernel(objective: Objective) -> Kernel:
    """Return how the features enter by default."""
    if isinstance(objective, SoftmaxCrossEntropy):
        return "tempered"
    return "cosine" if isinstance(objective, IndependentSigmoids) else "linear"


def default_penalty(objective: Objective) -> float:
    """Return K n by default, where features are not tempered."""
    return REGRESSION_TOTAL_PENALTY if isinstance(objective, SquaredError | Huber) else SPARSE_TOTAL_PENALTY


def fit_outputs(
    objective: Objective,
    features: np.ndarray,
    targets: np.ndarray,
    K: float,
    solver: PerOutputSVMSolver,
    sample_weight: np.ndarray | None = None,
) -> OutputSurrogate:
    """Fit a machine to every output.

    Labels of a regression are standardised, so that K and the zone without loss mean the same for any unit.

    Args:
        objective: of the model.
        features: phi, shape (n, d).
        targets: labels in the form of the objective, shape (n, c).
        K: penalty, next to features and labels as they are fitted.
        solver: of the machines.
        sample_weight: of the examples, shape (n,), which K is multiplied by; 1 by default.

    Warns:
        UserWarning: labels of a regression that are all equal.
    """
    if isinstance(objective, IndependentSigmoids):
        found = solver.solve_binary(features, 2.0 * targets - 1.0, K, sample_weight=sample_weight)
        return OutputSurrogate(found, np.zeros(targets.shape[1]))
    labels = targets.astype(np.float64)
    mean, deviation = labels.mean(axis=0), labels.std(axis=0)
    if sample_weight is not None:
        mean = np.average(labels, axis=0, weights=sample_weight)
        deviation = np.sqrt(np.average((labels - mean) ** 2, axis=0, weights=sample_weight))
    if not deviation.all():
        warnings.warn(
            describe(
                "All training labels of an output are equal (or there is one example), so that its surrogate is that "
                "number and no training example has influence on it.",
                {"outputs": np.flatnonzero(deviation == 0).tolist(), "num_train": len(labels)},
            ),
            UserWarning,
            stacklevel=4,
        )
    unit = np.where(deviation > 0, deviation, 1.0)
    found = solver.solve_regression(
        features, (labels - mean) / unit, K, epsilon=INSENSITIVITY, sample_weight=sample_weight
    )
    return OutputSurrogate(
        replace(
            found,
            coefficients=scipy.sparse.csr_array(found.coefficients * unit),
            weights=found.weights * unit,
            primal=found.primal * unit**2,
            gap=found.gap * unit**2,
        ),
        mean,
    )
