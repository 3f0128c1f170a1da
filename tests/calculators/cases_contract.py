"""The calculators of the contract suite."""

import numpy as np
from cases_arnoldi import CASES as ARNOLDI_CASES
from cases_gradients import CASES as GRADIENT_CASES
from cases_influence import CASES as INFLUENCE_CASES
from cases_representers import CASES as REPRESENTER_CASES

from deel_dualview import (
    DualSVMSolver,
    DualView,
    Ensemble,
    FeatureSimilarity,
    FirstOrderInfluenceCalculator,
)

# Looser than 1e-4: a surrogate that is fitted to features of other last bits agrees to its solver's tolerance.
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}
# Features of another batch size differ in their last bits: a tight tolerance keeps that out of the fitted values.
SOLVER = DualSVMSolver(tolerance=1e-7)


def ensemble(model, train, target="prediction", store=None):
    """Of two kinds, whose scales differ."""
    members = [kind(model, train, store=store) for kind in (FirstOrderInfluenceCalculator, FeatureSimilarity)]
    return Ensemble(members, scale="query", target=target)


CALCULATORS = {
    **ARNOLDI_CASES,
    **GRADIENT_CASES,
    **INFLUENCE_CASES,
    **REPRESENTER_CASES,
    "Ensemble": ensemble,
    "DualView": lambda model, train, **settings: DualView(model, train, K=0.1, solver=SOLVER, **settings),
    "DualView, linear with bias": lambda model, train, **settings: DualView(
        model, train, K=1.0, kernel="linear", bias=True, solver=SOLVER, **settings
    ),
    "DualView, standardized": lambda model, train, **settings: DualView(
        model, train, K=10.0, kernel="standardized", solver=SOLVER, **settings
    ),
}
# Settings that change the values of a class, and none of the code that reads, refuses and gathers.
OTHER_SETTINGS = {
    "Ensemble",
    "Arnoldi, hidden layer",
    "SIM-rp",
    "GradDot, Adam",
    "GradCos, Adam, all weights",
    "FirstOrder, conjugate gradients",
    "FirstOrder, hidden layer",
    "RelatIF by the loss",
    "FeatureSimilarity, euclidean",
    "DualView, linear with bias",
    "DualView, standardized",
}
ONE_OF_EACH = {name: make for name, make in CALCULATORS.items() if name not in OTHER_SETTINGS}


def all_values(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))
