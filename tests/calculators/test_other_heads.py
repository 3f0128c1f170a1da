"""Calculators of regressions, independent labels and custom losses: what removal does, completeness, naive twins."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases_objectives import HEADS, NUM_FEATURES, NUM_TEST, NUM_TRAIN, PENALTY, Head, make_head

from deel_dualview import (
    ArnoldiIHVP,
    ArnoldiInfluenceCalculator,
    EkfacIHVP,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    GradDot,
    InfluenceModel,
    LeverageCorrectedInfluenceCalculator,
    RepresenterPointL2,
    RepresenterPointLJE,
    SecondOrderInfluenceCalculator,
    SquaredError,
)


@pytest.fixture(scope="module", params=HEADS)
def head(request) -> Head:
    return make_head(*HEADS[request.param])


@pytest.fixture(scope="module")
def exact(head) -> ExactIHVP:
    return ExactIHVP(head.model, head.train_set(), damping=0.0, regularisation=2 * PENALTY)


@functools.cache
def changes_by_removal(name: str) -> np.ndarray:
    """Return by how much each training example raises output 0 of each test example, shape (m, n)."""
    head = make_head(*HEADS[name])
    before = head.test_outputs_without(None)[:, 0]
    return np.stack([before - head.test_outputs_without(index)[:, 0] for index in range(NUM_TRAIN)], axis=1)


def values(calculator, head: Head) -> np.ndarray:
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(head.test_set())))


def name_of(head: Head) -> str:
    return next(
        name
        for name, (objective, c) in HEADS.items()
        if objective is head.objective and c == head.num_outputs
    )


@pytest.mark.parametrize(
    "calculator",
    [FirstOrderInfluenceCalculator, SecondOrderInfluenceCalculator, LeverageCorrectedInfluenceCalculator],
)
def test_influence_is_what_retraining_without_the_example_does_to_the_output(calculator, head, exact):
    found = values(calculator(head.model, head.train_set(), exact, target=0), head)
    truth = changes_by_removal(name_of(head))
    correlation = np.corrcoef(found.ravel(), truth.ravel())[0, 1]
    slope = (found * truth).sum() / (found**2).sum()
    assert correlation >= 0.98
    # First order keeps the example in the Hessian; the correction is exact where the Hessian does not change.
    assert 0.9 <= slope <= 1.25
    if calculator is LeverageCorrectedInfluenceCalculator:
        assert abs(slope - 1) <= 0.1


def test_leverage_correction_of_squared_error_is_exact():
    head = make_head(*HEADS["squared-3"])
    exact = ExactIHVP(head.model, head.train_set(), damping=0.0, regularisation=2 * PENALTY)
    found = values(LeverageCorrectedInfluenceCalculator(head.model, head.train_set(), exact, target=0), head)
    # Kept features and the inverse are float32.
    np.testing.assert_allclose(found, changes_by_removal("squared-3"), rtol=2e-3, atol=1e-5)


def test_contributions_of_representer_points_add_up_to_the_outputs(head):
    for calculator in (
        RepresenterPointL2(head.model, head.train_set(), target=0, lambda_regularization=PENALTY),
        RepresenterPointLJE(head.model, head.train_set(), target=0),
    ):
        outputs = head.model.logits(head.test_inputs)[:, 0]
        np.testing.assert_allclose(values(calculator, head).sum(axis=1), outputs, rtol=1e-4, atol=1e-4)


def test_the_retrained_layer_at_the_penalty_of_the_model_is_the_model(head):
    calculator = RepresenterPointL2(head.model, head.train_set(), target=0, lambda_regularization=PENALTY)
    fidelity = calculator.surrogate_fidelity(head.test_set())
    assert fidelity.r_squared > 1 - 1e-6 and fidelity.rank_correlation > 0.999
    assert fidelity.completeness_error < 1e-5 and fidelity.num_examples == NUM_TEST


def naive_hessian(head: Head) -> np.ndarray:
    matrices = [
        np.kron(
            head.objective.hessian(tf.constant(head.model.logits(row[np.newaxis])), label[np.newaxis])[0],
            np.outer(row, row),
        )
        for row, label in zip(head.inputs, head.labels, strict=True)
    ]
    return np.mean(matrices, axis=0)


def test_the_hessian_of_the_last_layer_is_the_mean_of_those_of_the_examples(head, exact):
    matrix = exact.hessian.to_dense().numpy()
    expected = naive_hessian(head) + 2 * PENALTY * np.eye(len(matrix))
    np.testing.assert_allclose(matrix, expected, rtol=1e-4, atol=1e-6)


def test_ekfac_in_a_last_layer_is_exact_where_the_hessian_factors():
    head = make_head(SquaredError(), 3)
    approximate = EkfacIHVP(head.model, head.train_set(), weights="last", damping=0.1, num_samples=None)
    exact = ExactIHVP(head.model, head.train_set(), damping=0.1)
    rows = tf.constant(np.random.default_rng(0).normal(size=(4, exact.size)), tf.float32)
    np.testing.assert_allclose(approximate.solve(rows).value, exact.solve(rows).value, rtol=1e-3, atol=1e-4)


def test_arnoldi_with_all_eigenvectors_is_first_order():
    # No two eigenvalues are equal, as they are of squared errors of several outputs.
    head = make_head(*HEADS["sigmoids-3"])
    size = 3 * NUM_FEATURES
    ihvp = ArnoldiIHVP(head.model, head.train_set(), rank=size, num_iterations=size, damping=0.1)
    found = values(ArnoldiInfluenceCalculator(head.model, head.train_set(), ihvp, target=0), head)
    exact = ExactIHVP(head.model, head.train_set(), damping=0.1)
    expected = values(FirstOrderInfluenceCalculator(head.model, head.train_set(), exact, target=0), head)
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-5)


def test_an_output_that_the_model_does_not_have_is_refused():
    head = make_head(SquaredError(), 1)
    with pytest.raises(ValueError, match=r"output 0\.\.0"):
        GradDot(head.model, head.train_set(), target=1)


def test_logits_and_margins_of_a_regression_are_refused():
    head = make_head(SquaredError(), 1)
    with pytest.raises(ValueError, match="function='loss'"):
        GradDot(head.model, head.train_set(), function="logit")


def test_a_label_is_explained_by_its_loss(head):
    labelled = tf.data.Dataset.from_tensor_slices((head.inputs[:6], head.labels[:6])).batch(6)
    calculator = GradDot(head.model, head.train_set(), target="label")
    found = np.concatenate(list(calculator.estimate_influence_values_in_batches(labelled)))
    own = np.concatenate(list(calculator.compute_influence_values()))
    np.testing.assert_allclose(np.diag(found[:, :6]), own[:6], rtol=1e-5)
    assert (own >= 0).all()


@pytest.mark.parametrize("weights", ["all", "last"])
def test_layers_before_the_last_are_differentiated_too(weights):
    keras.utils.set_random_seed(1)
    network = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, "tanh", name="hidden"), keras.layers.Dense(2, name="out")]
    )
    network.compile(loss="mse")
    generator = np.random.default_rng(0)
    inputs, labels = (
        generator.normal(size=(9, 3)).astype(np.float32),
        generator.normal(size=(9, 2)).astype(np.float32),
    )
    variables = [variable.value for variable in network.trainable_variables[-2 if weights == "last" else 0 :]]

    def naive(row: np.ndarray, function) -> np.ndarray:
        with tf.GradientTape() as tape:
            result = function(network(row[np.newaxis])[0])
        return np.concatenate([part.numpy().ravel() for part in tape.gradient(result, variables)])

    queries = np.stack([naive(row, lambda outputs: -outputs[1]) for row in inputs[:4]])
    losses = np.stack(
        [
            naive(row, lambda outputs, label=label: tf.reduce_mean((outputs - label) ** 2))
            for row, label in zip(inputs, labels, strict=True)
        ]
    )
    train_set = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4)
    test_set = tf.data.Dataset.from_tensor_slices((inputs[:4],)).batch(4)
    model = InfluenceModel(network)
    calculator = GradDot(model, train_set, weights=weights, target=1)
    found = np.concatenate(list(calculator.estimate_influence_values_in_batches(test_set)))
    np.testing.assert_allclose(found, queries @ losses.T, rtol=1e-4, atol=1e-5)
    curvature = ExactIHVP(model, train_set, weights=weights, curvature="gauss-newton", damping=0.5)
    expected = sum(
        2 / 2 * np.outer(part, part)
        for row in inputs
        for part in (naive(row, lambda outputs: outputs[0]), naive(row, lambda outputs: outputs[1]))
    ) / len(inputs)
    order = np.linalg.eigvalsh(curvature.hessian.to_dense().numpy() - 0.5 * np.eye(curvature.size))
    np.testing.assert_allclose(order, np.linalg.eigvalsh(expected), atol=1e-4)


@pytest.mark.parametrize("calculator", [FirstOrderInfluenceCalculator, SecondOrderInfluenceCalculator])
def test_a_step_that_rescales_the_outputs_rescales_their_influences(calculator):
    head = make_head(SquaredError(), 1)
    kernel = head.model.model.layers[0].get_weights()
    scaled = keras.Sequential(
        [
            keras.Input((NUM_FEATURES,)),
            keras.layers.Dense(1, use_bias=False),
            keras.layers.Rescaling(10.0, 3.0),
        ]
    )
    scaled.layers[0].set_weights(kernel)
    other = head._replace(model=InfluenceModel(scaled, loss_function="mse"), labels=10 * head.labels + 3)
    found, expected = (values(calculator(one.model, one.train_set(), target=0), one) for one in (other, head))
    np.testing.assert_allclose(found, 10 * expected, rtol=1e-3, atol=1e-4)


def behind(activation: str) -> tuple[keras.Model, tf.data.Dataset]:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((NUM_FEATURES,)), keras.layers.Dense(1, activation, use_bias=False)]
    )
    model.compile(loss="poisson")
    inputs = np.random.default_rng(0).normal(size=(9, NUM_FEATURES)).astype(np.float32)
    return model, tf.data.Dataset.from_tensor_slices((inputs, np.arange(9, dtype=np.float32))).batch(4)


@pytest.mark.parametrize("activation", ["relu", "exponential", "softplus"])
def test_a_regression_is_explained_before_the_activation_of_its_last_layer(activation):
    model, train_set = behind(activation)
    calculator = GradDot(model, train_set)
    found = np.concatenate(list(calculator.estimate_influence_values_in_batches(train_set)))
    inputs, labels = (np.concatenate(parts) for parts in zip(*train_set.as_numpy_iterator(), strict=True))
    outputs = tf.constant(inputs) @ model.layers[0].kernel.value
    with tf.GradientTape() as tape:
        tape.watch(outputs)
        losses = keras.losses.poisson(labels[:, np.newaxis], keras.activations.get(activation)(outputs))
    slopes = tape.gradient(losses, outputs).numpy()[:, 0]
    np.testing.assert_allclose(found, -(inputs @ inputs.T) * slopes, rtol=1e-4, atol=1e-5)


def test_a_classifier_does_not_end_in_an_activation_of_regressions():
    model, _ = behind("relu")
    with pytest.raises(ValueError, match="ends in relu is explained as a regression"):
        InfluenceModel(model, loss_function="binary_crossentropy").objective  # noqa: B018


@pytest.mark.parametrize(
    "make", [ExactIHVP, functools.partial(ArnoldiIHVP, rank=2)], ids=["exact", "arnoldi"]
)
def test_a_loss_without_second_derivative_has_no_inverse_hessian_and_says_so(make):
    model, train_set = behind("linear")
    model.compile(loss="mae")
    with pytest.raises(ValueError, match="no second derivative.*GradDot"):
        make(model, train_set)
