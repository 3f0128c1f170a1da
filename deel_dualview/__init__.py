"""Local training-data attribution for Keras: which training examples made a model say that."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deel_dualview.auditing import audit as audit
    from deel_dualview.auditing.callbacks import AuditCallback as AuditCallback
    from deel_dualview.auditing.compare import compare as compare
    from deel_dualview.calculators.arnoldi import ArnoldiInfluenceCalculator as ArnoldiInfluenceCalculator
    from deel_dualview.calculators.base import BaseInfluenceCalculator as BaseInfluenceCalculator
    from deel_dualview.calculators.boundary import SampleBoundaryCalculator as SampleBoundaryCalculator
    from deel_dualview.calculators.boundary import WeightsBoundaryCalculator as WeightsBoundaryCalculator
    from deel_dualview.calculators.dualview import DualView as DualView
    from deel_dualview.calculators.ensemble import Ensemble as Ensemble
    from deel_dualview.calculators.feature_similarity import FeatureSimilarity as FeatureSimilarity
    from deel_dualview.calculators.first_order import (
        FirstOrderInfluenceCalculator as FirstOrderInfluenceCalculator,
    )
    from deel_dualview.calculators.graddot import GradCos as GradCos
    from deel_dualview.calculators.graddot import GradDot as GradDot
    from deel_dualview.calculators.leverage import (
        LeverageCorrectedInfluenceCalculator as LeverageCorrectedInfluenceCalculator,
    )
    from deel_dualview.calculators.methods import METHODS as METHODS
    from deel_dualview.calculators.methods import NamedMethod as NamedMethod
    from deel_dualview.calculators.relatif import RelatIF as RelatIF
    from deel_dualview.calculators.representer_l2 import RepresenterPointL2 as RepresenterPointL2
    from deel_dualview.calculators.representer_lje import RepresenterPointLJE as RepresenterPointLJE
    from deel_dualview.calculators.second_order import (
        SecondOrderInfluenceCalculator as SecondOrderInfluenceCalculator,
    )
    from deel_dualview.calculators.tracin import TracIn as TracIn
    from deel_dualview.calculators.trak import Trak as Trak
    from deel_dualview.calculators.unrolled import UnrolledInfluenceCalculator as UnrolledInfluenceCalculator
    from deel_dualview.data.digits import load_digits as load_digits
    from deel_dualview.data.digits import swap_labels as swap_labels
    from deel_dualview.gradients import PerExampleGradients as PerExampleGradients
    from deel_dualview.ihvp import ArnoldiIHVP as ArnoldiIHVP
    from deel_dualview.ihvp import ConjugateGradientDescentIHVP as ConjugateGradientDescentIHVP
    from deel_dualview.ihvp import EkfacConjugateGradientIHVP as EkfacConjugateGradientIHVP
    from deel_dualview.ihvp import EkfacIHVP as EkfacIHVP
    from deel_dualview.ihvp import ExactIHVP as ExactIHVP
    from deel_dualview.ihvp import IdentityIHVP as IdentityIHVP
    from deel_dualview.ihvp import LayerwiseDamping as LayerwiseDamping
    from deel_dualview.ihvp import LissaIHVP as LissaIHVP
    from deel_dualview.ihvp import RelativeDamping as RelativeDamping
    from deel_dualview.labels import Correction as Correction
    from deel_dualview.labels import LabelIssues as LabelIssues
    from deel_dualview.labels import OutputLabelIssues as OutputLabelIssues
    from deel_dualview.labels import corrected as corrected
    from deel_dualview.labels import label_issues as label_issues
    from deel_dualview.labels import read_corrections as read_corrections
    from deel_dualview.linalg.projections import FactoredProjection as FactoredProjection
    from deel_dualview.linalg.projections import GaussianProjection as GaussianProjection
    from deel_dualview.linalg.projections import IdentityProjection as IdentityProjection
    from deel_dualview.linalg.projections import KroneckerProjection as KroneckerProjection
    from deel_dualview.lrp import LRP as LRP
    from deel_dualview.lrp import canonize as canonize
    from deel_dualview.models import InfluenceModel as InfluenceModel
    from deel_dualview.models.arrays import to_dataset as to_dataset
    from deel_dualview.models.checkpoints import Checkpoints as Checkpoints
    from deel_dualview.models.checkpoints import SaveCheckpoints as SaveCheckpoints
    from deel_dualview.models.checkpoints import load_checkpoints as load_checkpoints
    from deel_dualview.models.custom_loss import CustomLoss as CustomLoss
    from deel_dualview.models.ensembles import TreeEnsembleModel as TreeEnsembleModel
    from deel_dualview.models.objectives import Huber as Huber
    from deel_dualview.models.objectives import IndependentSigmoids as IndependentSigmoids
    from deel_dualview.models.objectives import Objective as Objective
    from deel_dualview.models.objectives import SoftmaxCrossEntropy as SoftmaxCrossEntropy
    from deel_dualview.models.objectives import SquaredError as SquaredError
    from deel_dualview.relevance import DualRelevance as DualRelevance
    from deel_dualview.relevance import PairRelevance as PairRelevance
    from deel_dualview.search import ORDER as ORDER
    from deel_dualview.search import TopK as TopK
    from deel_dualview.search.faiss_index import FaissIndex as FaissIndex
    from deel_dualview.stores import DiskStore as DiskStore
    from deel_dualview.stores import MemoryStore as MemoryStore
    from deel_dualview.stores import NoStore as NoStore
    from deel_dualview.stores import StoreError as StoreError
    from deel_dualview.svm import ConvergenceWarning as ConvergenceWarning
    from deel_dualview.svm import DualSVMSolution as DualSVMSolution
    from deel_dualview.svm import DualSVMSolver as DualSVMSolver
    from deel_dualview.svm import PerOutputSVMSolution as PerOutputSVMSolution
    from deel_dualview.svm import PerOutputSVMSolver as PerOutputSVMSolver
    from deel_dualview.verification import diagnose as diagnose
    from deel_dualview.verification import smallest_flip as smallest_flip
    from deel_dualview.verification import verify as verify
    from deel_dualview.verification import what_if as what_if

__version__ = "0.1.0"
_PUBLIC_MODULES = (
    "evaluation",
    "ihvp",
    "lrp",
    "metrics",
    "plots",
    "relevance",
    "report",
    "stores",
    "svm",
    "verification",
)

# TensorFlow takes seconds to import; the command line answers --help without it.
_HOMES = {
    "METHODS": "calculators.methods",
    "LRP": "lrp",
    "ORDER": "search.top_k",
    "ArnoldiIHVP": "ihvp",
    "AuditCallback": "auditing.callbacks",
    "ArnoldiInfluenceCalculator": "calculators.arnoldi",
    "BaseInfluenceCalculator": "calculators.base",
    "Checkpoints": "models.checkpoints",
    "ConjugateGradientDescentIHVP": "ihvp",
    "ConvergenceWarning": "svm",
    "Correction": "labels",
    "DiskStore": "stores",
    "FaissIndex": "search.faiss_index",
    "DualRelevance": "relevance",
    "DualSVMSolution": "svm",
    "DualSVMSolver": "svm",
    "DualView": "calculators.dualview",
    "EkfacConjugateGradientIHVP": "ihvp",
    "EkfacIHVP": "ihvp",
    "Ensemble": "calculators.ensemble",
    "ExactIHVP": "ihvp",
    "FactoredProjection": "linalg.projections",
    "FeatureSimilarity": "calculators.feature_similarity",
    "FirstOrderInfluenceCalculator": "calculators.first_order",
    "GaussianProjection": "linalg.projections",
    "GradCos": "calculators.graddot",
    "GradDot": "calculators.graddot",
    "IdentityIHVP": "ihvp",
    "IdentityProjection": "linalg.projections",
    "InfluenceModel": "models.influence_model",
    "KroneckerProjection": "linalg.projections",
    "LabelIssues": "labels",
    "LayerwiseDamping": "ihvp",
    "LeverageCorrectedInfluenceCalculator": "calculators.leverage",
    "LissaIHVP": "ihvp",
    "MemoryStore": "stores",
    "NamedMethod": "calculators.methods",
    "NoStore": "stores",
    "OutputLabelIssues": "labels",
    "PairRelevance": "relevance",
    "PerExampleGradients": "gradients",
    "PerOutputSVMSolution": "svm",
    "PerOutputSVMSolver": "svm",
    "RelatIF": "calculators.relatif",
    "RelativeDamping": "ihvp",
    "RepresenterPointL2": "calculators.representer_l2",
    "RepresenterPointLJE": "calculators.representer_lje",
    "SampleBoundaryCalculator": "calculators.boundary",
    "SaveCheckpoints": "models.checkpoints",
    "SecondOrderInfluenceCalculator": "calculators.second_order",
    "StoreError": "stores",
    "TopK": "search.top_k",
    "TracIn": "calculators.tracin",
    "Trak": "calculators.trak",
    "TreeEnsembleModel": "models.ensembles",
    "UnrolledInfluenceCalculator": "calculators.unrolled",
    "WeightsBoundaryCalculator": "calculators.boundary",
    "audit": "auditing",
    "compare": "auditing.compare",
    "corrected": "labels",
    "canonize": "lrp",
    "CustomLoss": "models.custom_loss",
    "Huber": "models.objectives",
    "IndependentSigmoids": "models.objectives",
    "Objective": "models.objectives",
    "SoftmaxCrossEntropy": "models.objectives",
    "SquaredError": "models.objectives",
    "label_issues": "labels",
    "load_digits": "data.digits",
    "diagnose": "verification",
    "smallest_flip": "verification",
    "swap_labels": "data.digits",
    "verify": "verification",
    "what_if": "verification",
    "read_corrections": "labels",
    "load_checkpoints": "models.checkpoints",
    "to_dataset": "models.arrays",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PUBLIC_MODULES, "__version__"])
