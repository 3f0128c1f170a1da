"""Influence functions in the contract suite."""

from deel_dualview import (
    ConjugateGradientDescentIHVP,
    FirstOrderInfluenceCalculator,
    IdentityIHVP,
    LeverageCorrectedInfluenceCalculator,
    RelatIF,
    SecondOrderInfluenceCalculator,
)


def first_order(model, train, ihvp, **settings):
    """First order with an inverse of its own."""
    return FirstOrderInfluenceCalculator(model, train, ihvp(model, train), **settings)


def by_conjugate_gradients(model, train, **settings):
    return first_order(model, train, ConjugateGradientDescentIHVP, **settings)


def in_hidden_layer(model, train, **settings):
    """Without a curvature, whose products with other layers would take minutes in all; they have own tests."""

    def ihvp(model, train):
        return IdentityIHVP(model, train, weights=[model.model.layers[0].name])

    return first_order(model, train, ihvp, **settings)


CASES = {
    "FirstOrder": FirstOrderInfluenceCalculator,
    "FirstOrder, conjugate gradients": by_conjugate_gradients,
    "FirstOrder, hidden layer": in_hidden_layer,
    "SecondOrder": SecondOrderInfluenceCalculator,
    "RelatIF": RelatIF,
    "RelatIF by the loss": lambda model, train, **settings: RelatIF(
        model, train, normalisation="loss", **settings
    ),
    "LeverageCorrected": LeverageCorrectedInfluenceCalculator,
}
