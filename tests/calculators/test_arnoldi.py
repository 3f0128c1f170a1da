"""Low-rank influence functions: equal to influence functions at full rank, few numbers below."""

import numpy as np
import pytest

from deel_dualview import (
    ArnoldiIHVP,
    ArnoldiInfluenceCalculator,
    DiskStore,
    ExactIHVP,
    InfluenceModel,
    PerExampleGradients,
)
from deel_dualview.linalg import blocks


@pytest.fixture(scope="module")
def model(problem):
    return InfluenceModel(problem.model)


@pytest.fixture(scope="module")
def calculator(model, problem):
    return ArnoldiInfluenceCalculator(model, problem.train())


@pytest.fixture(scope="module")
def train_gradients(model, problem):
    gradients = PerExampleGradients(model)
    return blocks.to_dense(gradients(problem.train_inputs, problem.train_labels)).numpy()


def values_of(calculator, dataset):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def query_gradients(model, problem):
    classes = model.logits(problem.test_inputs).numpy().argmax(axis=1)
    return blocks.to_dense(PerExampleGradients(model)(problem.test_inputs, classes)).numpy()


def test_at_full_rank_it_is_the_influence_function(calculator, model, problem, train_gradients):
    inverse = ExactIHVP(model, problem.train()).inverse.numpy()
    expected = query_gradients(model, problem) @ inverse @ train_gradients.T / 60
    np.testing.assert_allclose(
        values_of(calculator, problem.test()), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


def test_at_low_rank_it_is_the_inverse_applied_to_queries(model, problem, train_gradients):
    ihvp = ArnoldiIHVP(model, problem.train(), rank=4)
    solved = ihvp.solve(query_gradients(model, problem)).value.numpy()
    expected = solved @ train_gradients.T / 60
    found = values_of(ArnoldiInfluenceCalculator(model, problem.train(), ihvp), problem.test())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_it_keeps_r_numbers_an_example(model, problem):
    ihvp = ArnoldiIHVP(model, problem.train(), weights="all", rank=4)
    calculator = ArnoldiInfluenceCalculator(model, problem.train(), ihvp)
    vectors = np.concatenate([block[0] for block in calculator.compute_influence_vector()])
    assert vectors.shape == (60, 4)


def test_it_reports_the_spectrum(calculator):
    assert calculator.spectrum.rank == 27
    assert np.all(np.diff(np.abs(calculator.spectrum.eigenvalues)) <= 0)


def test_self_influence_is_not_negative(calculator):
    assert np.concatenate(list(calculator.compute_influence_values())).min() >= 0


def test_stored_projections_onto_other_eigenvectors_are_refused(model, problem, tmp_path):
    hidden = [problem.model.layers[0].name]
    ihvp = ArnoldiIHVP(model, problem.train(), weights=hidden, rank=4)
    ArnoldiInfluenceCalculator(model, problem.train(), ihvp, store=DiskStore(tmp_path / "store"))
    turned = ArnoldiIHVP(model, problem.train(), weights=hidden, rank=4)
    turned._vectors = turned._vectors[::-1]
    with pytest.raises(ValueError, match="other eigenvectors"):
        ArnoldiInfluenceCalculator(model, problem.train(), turned, store=DiskStore(tmp_path / "store"))


def test_another_kind_of_inverse_is_refused(model, problem):
    with pytest.raises(TypeError, match="FirstOrderInfluenceCalculator"):
        ArnoldiInfluenceCalculator(model, problem.train(), ExactIHVP(model, problem.train()))


def test_an_inverse_of_another_model_is_refused(calculator, problem):
    import keras

    other = InfluenceModel(keras.models.clone_model(problem.model))
    with pytest.raises(ValueError, match="ihvp"):
        ArnoldiInfluenceCalculator(other, problem.train(), calculator.ihvp)
