"""Calculators on penultimate features that the contract suite runs over."""

from deel_dualview.calculators.feature_similarity import FeatureSimilarity
from deel_dualview.calculators.representer_l2 import RepresenterPointL2
from deel_dualview.calculators.representer_lje import RepresenterPointLJE

CASES = {
    "RepresenterPointL2": lambda model, train, **settings: RepresenterPointL2(model, train, **settings),
    "RepresenterPointLJE": lambda model, train, **settings: RepresenterPointLJE(model, train, **settings),
    "FeatureSimilarity": lambda model, train, **settings: FeatureSimilarity(model, train, **settings),
    "FeatureSimilarity, euclidean": lambda model, train, **settings: FeatureSimilarity(
        model, train, similarity="euclidean", **settings
    ),
}
