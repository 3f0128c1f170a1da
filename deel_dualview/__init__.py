"""Local training-data attribution for Keras: which training examples made a classifier say that."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deel_dualview.auditing import audit
    from deel_dualview.calculators.base import BaseInfluenceCalculator
    from deel_dualview.calculators.dualview import DualView
    from deel_dualview.models import InfluenceModel
    from deel_dualview.search import ORDER, TopK
    from deel_dualview.stores import DiskStore, MemoryStore, NoStore, StoreError
    from deel_dualview.svm import ConvergenceWarning, DualSVMSolution, DualSVMSolver

__version__ = "0.1.0"

# TensorFlow takes seconds to import; the command line answers --help without it.
_HOMES = {
    "ORDER": "search",
    "BaseInfluenceCalculator": "calculators.base",
    "ConvergenceWarning": "svm",
    "DiskStore": "stores",
    "DualSVMSolution": "svm",
    "DualSVMSolver": "svm",
    "DualView": "calculators.dualview",
    "InfluenceModel": "models",
    "MemoryStore": "stores",
    "NoStore": "stores",
    "StoreError": "stores",
    "TopK": "search",
    "audit": "auditing",
}

__all__ = [
    "ORDER",
    "BaseInfluenceCalculator",
    "ConvergenceWarning",
    "DiskStore",
    "DualSVMSolution",
    "DualSVMSolver",
    "DualView",
    "InfluenceModel",
    "MemoryStore",
    "NoStore",
    "StoreError",
    "TopK",
    "audit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
