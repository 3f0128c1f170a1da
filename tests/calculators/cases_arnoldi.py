"""Low-rank influence functions, for the contract suite."""

from deel_dualview import ArnoldiIHVP, ArnoldiInfluenceCalculator


def in_the_hidden_layer(model, train, **settings):
    ihvp = ArnoldiIHVP(model, train, weights=[model.model.layers[0].name], rank=6, num_iterations=20)
    return ArnoldiInfluenceCalculator(model, train, ihvp, **settings)


CASES = {
    "Arnoldi": ArnoldiInfluenceCalculator,
    "Arnoldi, hidden layer": in_the_hidden_layer,
}
