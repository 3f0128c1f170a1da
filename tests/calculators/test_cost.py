"""The cost contract: how many examples pass through the network."""

import pytest
from cost_cases import BATCH, NUM_TEST, NUM_TRAIN, TEST, TRAIN, counting_model

from deel_dualview import (
    ArnoldiInfluenceCalculator,
    ConjugateGradientDescentIHVP,
    ConvergenceWarning,
    DiskStore,
    DualView,
    EkfacConjugateGradientIHVP,
    ExactIHVP,
    FeatureSimilarity,
    FirstOrderInfluenceCalculator,
    GradCos,
    GradDot,
    InfluenceModel,
    LeverageCorrectedInfluenceCalculator,
    RelatIF,
    RepresenterPointL2,
    RepresenterPointLJE,
    SecondOrderInfluenceCalculator,
    TracIn,
    Trak,
)


@pytest.fixture(scope="module")
def network():
    model, counter = counting_model()
    return InfluenceModel(model), counter


@pytest.fixture(scope="module")
def model(network):
    return network[0]


@pytest.fixture(scope="module")
def counter(network):
    return network[1]


CALCULATORS = {
    "Arnoldi": ArnoldiInfluenceCalculator,
    "DualView": lambda model, train, **store: DualView(model, train, K=0.01, **store),
    "FeatureSimilarity": FeatureSimilarity,
    "FirstOrder": FirstOrderInfluenceCalculator,
    "FirstOrder, exact given": lambda model, train, **store: FirstOrderInfluenceCalculator(
        model, train, ExactIHVP(model, train, **store), **store
    ),
    "FirstOrder, conjugate gradients given": lambda model, train, **store: FirstOrderInfluenceCalculator(
        model, train, ConjugateGradientDescentIHVP(model, train, **store), **store
    ),
    "GradCos": GradCos,
    "GradDot": GradDot,
    "LeverageCorrected": LeverageCorrectedInfluenceCalculator,
    "RelatIF": RelatIF,
    "RepresenterPointL2": RepresenterPointL2,
    "RepresenterPointLJE": RepresenterPointLJE,
    "SecondOrder": SecondOrderInfluenceCalculator,
    "TracIn": TracIn,
    "Trak": Trak,
}
# Each keeps vectors of its own in the store, not the features.
KEEP_VECTORS = {"TracIn", "Trak"}


def ask(calculator):
    list(calculator.top_k_indices(TEST, k=3))


def cost(counter, function):
    before = counter.num_examples
    result = function()
    return counter.num_examples - before, result


@pytest.fixture(scope="module", params=CALCULATORS)
def built(request, model, counter):
    """A calculator of each kind, and the examples that its constructor has sent through a prepared network."""
    list(FeatureSimilarity(model, TRAIN).top_k_indices(TEST, k=1))
    return cost(counter, lambda: CALCULATORS[request.param](model, TRAIN))


def test_the_network_runs_once_over_the_training_set(built):
    num_examples, _ = built
    # The fingerprint of a model with code of its own is its outputs of a few examples.
    assert NUM_TRAIN <= num_examples <= NUM_TRAIN + 5 * BATCH


def test_the_network_runs_once_over_the_queries(built, counter):
    # Conjugate gradients look up the features at the first solve.
    assert cost(counter, lambda: ask(built[1]))[0] <= NUM_TEST + BATCH
    assert cost(counter, lambda: ask(built[1]))[0] == NUM_TEST


def test_self_influence_of_a_method_in_the_last_layer_does_not_run_the_network(built, counter):
    assert cost(counter, lambda: list(built[1].compute_influence_values()))[0] == 0


@pytest.mark.parametrize("name", sorted(CALCULATORS.keys() - KEEP_VECTORS))
def test_calculators_share_the_pass_through_a_store_on_disk(name, model, counter, tmp_path):
    FeatureSimilarity(model, TRAIN, store=DiskStore(tmp_path))
    num_examples, calculator = cost(
        counter, lambda: CALCULATORS[name](model, TRAIN, store=DiskStore(tmp_path))
    )
    assert num_examples <= 5 * BATCH
    assert cost(counter, lambda: ask(calculator))[0] <= NUM_TEST + BATCH


def test_steps_of_ekfac_and_conjugate_gradients_run_the_network_over_the_drawn_examples_alone(model, counter):
    num_drawn, num_steps = 20, 2
    inverse = EkfacConjugateGradientIHVP(
        model, TRAIN, num_curvature_examples=num_drawn, max_iterations=num_steps, tolerance=1e-9
    )
    num_examples, calculator = cost(counter, lambda: FirstOrderInfluenceCalculator(model, TRAIN, inverse))
    assert num_examples <= NUM_TRAIN + 5 * BATCH
    with pytest.warns(ConvergenceWarning):
        num_examples, _ = cost(counter, lambda: ask(calculator))
    # Of each query its class, its gradient, its steps and the residual at the end, whatever n.
    assert num_examples <= NUM_TEST * (2 + (num_steps + 1) * num_drawn) + BATCH
