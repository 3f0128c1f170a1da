"""Support vector machines without offset, solved in the dual with a certificate; softmax regression."""

from deel_dualview.svm.dual import DualSVMSolver
from deel_dualview.svm.separable import PerOutputSVMSolution, PerOutputSVMSolver
from deel_dualview.svm.softmax_regression import SoftmaxRegression
from deel_dualview.svm.solution import ConvergenceWarning, DualSVMSolution, SolverProgress

__all__ = [
    "ConvergenceWarning",
    "DualSVMSolution",
    "DualSVMSolver",
    "PerOutputSVMSolution",
    "PerOutputSVMSolver",
    "SoftmaxRegression",
    "SolverProgress",
]


def __dir__() -> list[str]:
    return sorted(__all__)
