"""Local training-data attribution for Keras: which training examples made a classifier say that."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deel_dualview.auditing import audit
    from deel_dualview.calculators.arnoldi import ArnoldiInfluenceCalculator
    from deel_dualview.calculators.base import BaseInfluenceCalculator
    from deel_dualview.calculators.boundary import SampleBoundaryCalculator, WeightsBoundaryCalculator
    from deel_dualview.calculators.dualview import DualView
    from deel_dualview.calculators.feature_similarity import FeatureSimilarity
    from deel_dualview.calculators.first_order import FirstOrderInfluenceCalculator
    from deel_dualview.calculators.graddot import GradCos, GradDot
    from deel_dualview.calculators.leverage import LeverageCorrectedInfluenceCalculator
    from deel_dualview.calculators.relatif import RelatIF
    from deel_dualview.calculators.representer_l2 import RepresenterPointL2
    from deel_dualview.calculators.representer_lje import RepresenterPointLJE
    from deel_dualview.calculators.second_order import SecondOrderInfluenceCalculator
    from deel_dualview.calculators.tracin import TracIn
    from deel_dualview.calculators.trak import Trak
    from deel_dualview.callbacks import Checkpoints, SaveCheckpoints, load_checkpoints
    from deel_dualview.comparing import compare
    from deel_dualview.gradients import PerExampleGradients
    from deel_dualview.ihvp import (
        ArnoldiIHVP,
        ConjugateGradientDescentIHVP,
        EkfacIHVP,
        ExactIHVP,
        IdentityIHVP,
        LissaIHVP,
        RelativeDamping,
    )
    from deel_dualview.linalg.projections import (
        FactoredProjection,
        GaussianProjection,
        IdentityProjection,
        KroneckerProjection,
    )
    from deel_dualview.lrp import LRP, canonize
    from deel_dualview.methods import METHODS, NamedMethod
    from deel_dualview.models import InfluenceModel
    from deel_dualview.relevance import DualRelevance, PairRelevance
    from deel_dualview.search import ORDER, TopK
    from deel_dualview.stores import DiskStore, MemoryStore, NoStore, StoreError
    from deel_dualview.svm import ConvergenceWarning, DualSVMSolution, DualSVMSolver

__version__ = "0.1.0"
_PUBLIC_MODULES = (
    "datasets",
    "evaluation",
    "ihvp",
    "lrp",
    "metrics",
    "plots",
    "relevance",
    "report",
    "stores",
    "svm",
)

# TensorFlow takes seconds to import; the command line answers --help without it.
_HOMES = {
    "METHODS": "methods",
    "LRP": "lrp",
    "ORDER": "search",
    "ArnoldiIHVP": "ihvp",
    "ArnoldiInfluenceCalculator": "calculators.arnoldi",
    "BaseInfluenceCalculator": "calculators.base",
    "Checkpoints": "callbacks",
    "ConjugateGradientDescentIHVP": "ihvp",
    "ConvergenceWarning": "svm",
    "DiskStore": "stores",
    "DualRelevance": "relevance",
    "DualSVMSolution": "svm",
    "DualSVMSolver": "svm",
    "DualView": "calculators.dualview",
    "EkfacIHVP": "ihvp",
    "ExactIHVP": "ihvp",
    "FactoredProjection": "linalg.projections",
    "FeatureSimilarity": "calculators.feature_similarity",
    "FirstOrderInfluenceCalculator": "calculators.first_order",
    "GaussianProjection": "linalg.projections",
    "GradCos": "calculators.graddot",
    "GradDot": "calculators.graddot",
    "IdentityIHVP": "ihvp",
    "IdentityProjection": "linalg.projections",
    "InfluenceModel": "models",
    "KroneckerProjection": "linalg.projections",
    "LeverageCorrectedInfluenceCalculator": "calculators.leverage",
    "LissaIHVP": "ihvp",
    "MemoryStore": "stores",
    "NamedMethod": "methods",
    "NoStore": "stores",
    "PairRelevance": "relevance",
    "PerExampleGradients": "gradients",
    "RelatIF": "calculators.relatif",
    "RelativeDamping": "ihvp",
    "RepresenterPointL2": "calculators.representer_l2",
    "RepresenterPointLJE": "calculators.representer_lje",
    "SampleBoundaryCalculator": "calculators.boundary",
    "SaveCheckpoints": "callbacks",
    "SecondOrderInfluenceCalculator": "calculators.second_order",
    "StoreError": "stores",
    "TopK": "search",
    "TracIn": "calculators.tracin",
    "Trak": "calculators.trak",
    "WeightsBoundaryCalculator": "calculators.boundary",
    "audit": "auditing",
    "compare": "comparing",
    "canonize": "lrp",
    "load_checkpoints": "callbacks",
}

__all__ = [
    "METHODS",
    "LRP",
    "ORDER",
    "ArnoldiIHVP",
    "ArnoldiInfluenceCalculator",
    "BaseInfluenceCalculator",
    "Checkpoints",
    "ConjugateGradientDescentIHVP",
    "ConvergenceWarning",
    "DiskStore",
    "DualRelevance",
    "DualSVMSolution",
    "DualSVMSolver",
    "DualView",
    "EkfacIHVP",
    "ExactIHVP",
    "FactoredProjection",
    "FeatureSimilarity",
    "FirstOrderInfluenceCalculator",
    "GaussianProjection",
    "GradCos",
    "GradDot",
    "IdentityIHVP",
    "IdentityProjection",
    "InfluenceModel",
    "KroneckerProjection",
    "LeverageCorrectedInfluenceCalculator",
    "LissaIHVP",
    "MemoryStore",
    "NamedMethod",
    "NoStore",
    "PairRelevance",
    "PerExampleGradients",
    "RelatIF",
    "RelativeDamping",
    "RepresenterPointL2",
    "RepresenterPointLJE",
    "SampleBoundaryCalculator",
    "SaveCheckpoints",
    "SecondOrderInfluenceCalculator",
    "StoreError",
    "TopK",
    "TracIn",
    "Trak",
    "WeightsBoundaryCalculator",
    "audit",
    "compare",
    "canonize",
    "load_checkpoints",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PUBLIC_MODULES, "__version__"])
