"""Layer-wise relevance propagation for Keras 3: rules, composites, canonization and the propagation itself."""

from deel_dualview.lrp.calls import Call, Rule
from deel_dualview.lrp.canonize import canonize
from deel_dualview.lrp.composites import (
    EPSILON,
    EPSILON_ALPHA2_BETA1,
    EPSILON_ALPHA2_BETA1_FLAT,
    EPSILON_GAMMA,
    EPSILON_PLUS,
    EPSILON_PLUS_FLAT,
    Composite,
    epsilon_gamma_box,
)
from deel_dualview.lrp.discrete import LookUp
from deel_dualview.lrp.normalization import ScaleAsGiven
from deel_dualview.lrp.propagate import LRP
from deel_dualview.lrp.recurrent import ThroughTime
from deel_dualview.lrp.routing import Pass, Route, Share, SignalTakesAll, SumOverFeatures, ValuesTakeAll
from deel_dualview.lrp.rules import AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

__all__ = [
    "AlphaBeta",
    "Call",
    "Composite",
    "EPSILON",
    "EPSILON_ALPHA2_BETA1",
    "EPSILON_ALPHA2_BETA1_FLAT",
    "EPSILON_GAMMA",
    "EPSILON_PLUS",
    "EPSILON_PLUS_FLAT",
    "Epsilon",
    "Flat",
    "Gamma",
    "LRP",
    "LookUp",
    "Pass",
    "Route",
    "Rule",
    "ScaleAsGiven",
    "Share",
    "SignalTakesAll",
    "SumOverFeatures",
    "ThroughTime",
    "ValuesTakeAll",
    "WSquare",
    "ZBox",
    "ZPlus",
    "canonize",
    "epsilon_gamma_box",
]


def __dir__() -> list[str]:
    return sorted(__all__)
