"""Support vector machines without offset, solved in the dual with a certificate; penalised linear layers."""

from deel_dualview.svm.dual import DualSVMSolver
from deel_dualview.svm.penalised_layer import PenalisedLayer
from deel_dualview.svm.separable import PerOutputSVMSolution, PerOutputSVMSolver
from deel_dualview.svm.solution import ConvergenceWarning, DualSVMSolution, SolverProgress

__all__ = [
    "ConvergenceWarning",
    "DualSVMSolution",
    "DualSVMSolver",
    "PenalisedLayer",
    "PerOutputSVMSolution",
    "PerOutputSVMSolver",
    "SolverProgress",
]


def __dir__() -> list[str]:
    return sorted(__all__)
