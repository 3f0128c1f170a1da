"""Figures of merit of training-data attributions, in Keras' words: update_state, result, reset_state."""

from deel_dualview.metrics.agreement import LeaveOneOut, LinearDatamodelingScore, ModelRandomisation
from deel_dualview.metrics.base import Metric, MetricResult
from deel_dualview.metrics.concentration import Sparsity, TopKCardinality
from deel_dualview.metrics.domain_mismatch import DomainMismatch
from deel_dualview.metrics.fidelity import Completeness, SurrogateFidelity
from deel_dualview.metrics.known_examples import MRR, RecallAtK
from deel_dualview.metrics.label_poisoning import DetectionCurve, LabelErrorDetection, LabelPoisoning
from deel_dualview.metrics.pair_relevance import ConservationError, PixelFlipping, ShareInMask
from deel_dualview.metrics.retraining import Brittleness, CoreSet, Pruning
from deel_dualview.metrics.tail_patch import TailPatch
from deel_dualview.metrics.top_matches import IdenticalClass, IdenticalSubclass, TopKClass

__all__ = [
    "MRR",
    "Brittleness",
    "Completeness",
    "ConservationError",
    "CoreSet",
    "DetectionCurve",
    "DomainMismatch",
    "IdenticalClass",
    "IdenticalSubclass",
    "LabelErrorDetection",
    "LabelPoisoning",
    "LeaveOneOut",
    "LinearDatamodelingScore",
    "Metric",
    "MetricResult",
    "ModelRandomisation",
    "PixelFlipping",
    "Pruning",
    "RecallAtK",
    "ShareInMask",
    "Sparsity",
    "SurrogateFidelity",
    "TailPatch",
    "TopKCardinality",
    "TopKClass",
]


def __dir__() -> list[str]:
    return sorted(__all__)
