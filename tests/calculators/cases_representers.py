"""Calculators on penultimate features that the contract suite runs over."""

from deel_dualview import FeatureSimilarity, RepresenterPointL2, RepresenterPointLJE

CASES = {
    "RepresenterPointL2": lambda model, train, **settings: RepresenterPointL2(model, train, **settings),
    "RepresenterPointLJE": lambda model, train, **settings: RepresenterPointLJE(model, train, **settings),
    "FeatureSimilarity": lambda model, train, **settings: FeatureSimilarity(model, train, **settings),
    "FeatureSimilarity, euclidean": lambda model, train, **settings: FeatureSimilarity(
        model, train, similarity="euclidean", **settings
    ),
}
