"""Sample weights, class weights and smoothed labels: examples counted twice or left out, and what removal does."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
import scipy.optimize
import scipy.special
import tensorflow as tf

from deel_dualview import (
    ArnoldiIHVP,
    ArnoldiInfluenceCalculator,
    DiskStore,
    DualSVMSolver,
    DualView,
    EkfacIHVP,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    GradCos,
    GradDot,
    IndependentSigmoids,
    InfluenceModel,
    LeverageCorrectedInfluenceCalculator,
    PerOutputSVMSolver,
    RelatIF,
    RepresenterPointL2,
    RepresenterPointLJE,
    SecondOrderInfluenceCalculator,
    SoftmaxCrossEntropy,
    SquaredError,
    StoreError,
    TracIn,
    Trak,
)

NUM_TRAIN, NUM_CLASSES, DAMPING = 24, 3, 0.1
INPUTS = np.random.default_rng(0).normal(size=(NUM_TRAIN + 5, 4)).astype(np.float32)
TRAIN, TEST = INPUTS[:NUM_TRAIN], INPUTS[NUM_TRAIN:]
LABELS = np.random.default_rng(1).integers(0, NUM_CLASSES, NUM_TRAIN)
WEIGHTS = np.random.default_rng(2).choice([0.0, 1.0, 2.0, 3.0], NUM_TRAIN).astype(np.float32)
COPIES = np.repeat(np.arange(NUM_TRAIN), WEIGHTS.astype(int))
"""Every example as often as its weight says."""


def dataset(*arrays: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays).batch(10)


WEIGHTED, REPEATED = dataset(TRAIN, LABELS, WEIGHTS), dataset(TRAIN[COPIES], LABELS[COPIES])
QUERIES = dataset(TEST)


def size(train_set: tf.data.Dataset) -> int:
    return NUM_TRAIN if train_set is WEIGHTED else len(COPIES)


@pytest.fixture(scope="module")
def model() -> InfluenceModel:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(5, "tanh"), keras.layers.Dense(NUM_CLASSES)]
    return InfluenceModel(keras.Sequential([keras.Input((4,)), *layers]))


def values(calculator, queries: tf.data.Dataset = QUERIES) -> np.ndarray:
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(queries)))


def self_influence(calculator) -> np.ndarray:
    return np.concatenate(list(calculator.compute_influence_values()))


def inverse(kind, model, train_set, weights, **settings):
    # The mean over n examples has another scale than that over the copies.
    damping = DAMPING * NUM_TRAIN / size(train_set)
    return kind(model, train_set, weights=weights, damping=damping, **settings)


def exact(model, train_set, weights):
    return inverse(ExactIHVP, model, train_set, weights, curvature="gauss-newton")


ADDITIVE: dict[str, Callable] = {
    "first order": lambda model, data, weights: FirstOrderInfluenceCalculator(
        model, data, exact(model, data, weights)
    ),
    "EK-FAC": lambda model, data, weights: FirstOrderInfluenceCalculator(
        model, data, inverse(EkfacIHVP, model, data, weights, num_samples=None)
    ),
    "Arnoldi": lambda model, data, weights: ArnoldiInfluenceCalculator(
        model, data, inverse(ArnoldiIHVP, model, data, weights, rank=8)
    ),
    "GradDot": lambda model, data, weights: GradDot(model, data, weights=weights),
    "TracIn": lambda model, data, weights: TracIn(model, data, weights=weights),
    "TRAK": lambda model, data, weights: Trak(model, data, weights=weights),
    "RPS-L2": lambda model, data, weights: RepresenterPointL2(
        model, data, lambda_regularization=0.01 * NUM_TRAIN / size(data)
    ),
    "RPS-LJE": lambda model, data, weights: RepresenterPointLJE(
        model, data, gamma=1e-4 * size(data) / NUM_TRAIN
    ),
}
CASES = [
    (name, weights)
    for name in ADDITIVE
    for weights in ("last", "all")
    if not (name[:3] == "RPS" and weights == "all")
]


@pytest.mark.parametrize(("name", "weights"), CASES, ids=lambda value: value)
def test_an_example_of_weight_two_is_the_example_twice_and_of_weight_zero_is_left_out(model, name, weights):
    weighted, repeated = (ADDITIVE[name](model, data, weights) for data in (WEIGHTED, REPEATED))
    for found, copies in (
        (values(weighted), values(repeated)),
        (self_influence(weighted)[np.newaxis], self_influence(repeated)[np.newaxis]),
    ):
        expected = np.stack([copies[:, index == COPIES].sum(axis=1) for index in range(NUM_TRAIN)], axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5 * np.abs(expected).max())
        assert (found[:, WEIGHTS == 0] == 0).all()


@pytest.mark.parametrize(
    ("calculator", "weights"),
    [(FirstOrderInfluenceCalculator, "all"), (SecondOrderInfluenceCalculator, "last")],
)
def test_removing_an_example_of_weight_three_is_removing_three_copies(model, calculator, weights):
    index = int(np.flatnonzero(WEIGHTS == 3)[0])
    one, own = dataset(TRAIN[[index]], LABELS[[index]], WEIGHTS[[index]]), slice(index, index + 1)
    three = dataset(TRAIN[[index] * 3], LABELS[[index] * 3])
    weighted, repeated = (
        calculator(model, data, exact(model, data, weights)) for data in (WEIGHTED, REPEATED)
    )
    expected = np.concatenate(list(repeated.estimate_influence_values_group(QUERIES, three)))
    found = np.concatenate(list(weighted.estimate_influence_values_group(QUERIES, one)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(values(weighted)[:, own][:, 0], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("calculator", [DualView, RepresenterPointL2])
def test_weights_that_are_all_zero_are_refused(model, calculator):
    with pytest.raises(ValueError, match="weight above 0"):
        calculator(model, dataset(TRAIN, LABELS, np.zeros_like(WEIGHTS)))


@pytest.mark.parametrize("calculator", [GradCos, RelatIF])
def test_weights_cancel_in_a_direction_unless_they_are_zero(model, calculator):
    settings = {} if calculator is GradCos else {"ihvp": exact(model, WEIGHTED, "last")}
    plain = values(calculator(model, dataset(TRAIN, LABELS), **settings))
    found = values(calculator(model, WEIGHTED, **settings))
    np.testing.assert_allclose(found, plain * (WEIGHTS > 0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", ["last", "all"])
def test_class_weights_are_sample_weights_by_class(model, weights):
    by_class = InfluenceModel(model.model, class_weight={0: 2.0, 2: 0.0})
    plain, own = dataset(TRAIN, LABELS), dataset(TRAIN, LABELS, np.array([2.0, 1.0, 0.0], np.float32)[LABELS])
    for make in (
        lambda model, data: GradDot(model, data, weights=weights),
        lambda model, data: FirstOrderInfluenceCalculator(model, data, ExactIHVP(model, data, damping=0.1)),
    ):
        np.testing.assert_allclose(values(make(by_class, plain)), values(make(model, own)), rtol=1e-5)
    assert by_class.fingerprint != model.fingerprint


def test_class_and_sample_weights_multiply(model):
    by_class = InfluenceModel(model.model, class_weight={1: 3.0})
    expected = values(GradDot(model, dataset(TRAIN, LABELS))) * WEIGHTS * np.where(LABELS == 1, 3.0, 1.0)
    np.testing.assert_allclose(values(GradDot(by_class, WEIGHTED)), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("class_weight", [{0: -1.0}, {0: np.nan}, {-1: 1.0}])
def test_class_weights_that_are_negative_or_not_finite_are_refused(model, class_weight):
    with pytest.raises(ValueError, match="must not be negative"):
        InfluenceModel(model.model, class_weight=class_weight)


def test_class_weights_of_a_class_that_the_model_does_not_have_are_refused(model):
    with pytest.raises(ValueError, match=r"classes 0\.\.2"):
        GradDot(InfluenceModel(model.model, class_weight={3: 1.0}), dataset(TRAIN, LABELS))


def test_a_weight_that_is_not_finite_is_refused_by_position(model):
    wrong = np.where(np.arange(NUM_TRAIN) == 13, np.nan, 1.0).astype(np.float32)
    with pytest.raises(ValueError, match=r"not negative.*indices=\[13\]"):
        GradDot(model, dataset(TRAIN, LABELS, wrong))


def test_the_weights_of_queries_do_not_matter(model):
    calculator = GradDot(model, WEIGHTED)
    queries = dataset(TEST, np.zeros(len(TEST), np.int64), np.full(len(TEST), 7.0, np.float32))
    np.testing.assert_array_equal(values(calculator, queries), values(calculator))


def test_a_store_of_other_weights_is_refused(model, tmp_path):
    GradDot(model, WEIGHTED, store=DiskStore(tmp_path))
    with pytest.raises(StoreError):
        GradDot(model, dataset(TRAIN, LABELS, WEIGHTS + 1), store=DiskStore(tmp_path))


def test_the_training_examples_come_back_with_their_weights(model):
    top = next(iter(GradDot(model, WEIGHTED).top_k(QUERIES, k=2)))
    np.testing.assert_array_equal(top.training_samples[2], WEIGHTS[top.training_indices.numpy()])


@pytest.mark.parametrize(
    "objective", [SoftmaxCrossEntropy(), SquaredError(), IndependentSigmoids()], ids=repr
)
def test_dualview_of_weighted_examples_is_that_of_their_copies(objective):
    labels = LABELS if isinstance(objective, SoftmaxCrossEntropy) else (TRAIN[:, :3] > 0.1).astype(np.float32)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model = InfluenceModel(network, loss_function=objective)
    is_softmax = isinstance(objective, SoftmaxCrossEntropy)
    solver = (DualSVMSolver if is_softmax else PerOutputSVMSolver)(tolerance=1e-7)
    weighted, repeated = (
        DualView(model, data, K=0.5, target=0, solver=solver)
        for data in (dataset(TRAIN, labels, WEIGHTS), dataset(TRAIN[COPIES], labels[COPIES]))
    )
    found, copies = values(weighted), values(repeated)
    expected = np.stack([copies[:, index == COPIES].sum(axis=1) for index in range(NUM_TRAIN)], axis=1)
    np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    assert weighted.surrogate.converged and (found[:, WEIGHTS == 0] == 0).all()


PENALTY, MANY, LEFT_OUT = 0.02, 150, 30
ROWS = np.random.default_rng(3).normal(size=(MANY + 5, 4)).astype(np.float32)
RANDOM_WEIGHTS = np.random.default_rng(4).uniform(0.0, 2.0, MANY).astype(np.float32)
NOISY = (
    ROWS @ np.random.default_rng(5).normal(size=(4, 3)) + np.random.default_rng(6).normal(size=(MANY + 5, 3))
)[:MANY]
TRAINED = {
    "weighted softmax": (SoftmaxCrossEntropy(), NOISY.argmax(axis=1), RANDOM_WEIGHTS),
    "weighted regression": (SquaredError(), NOISY[:, :1].astype(np.float32), RANDOM_WEIGHTS),
    "smoothed softmax": (
        SoftmaxCrossEntropy(label_smoothing=0.2),
        NOISY.argmax(axis=1),
        np.ones(MANY, np.float32),
    ),
    "smoothed sigmoids": (
        IndependentSigmoids(label_smoothing=0.2),
        (NOISY > 0).astype(np.float32),
        RANDOM_WEIGHTS,
    ),
}


def naive_losses(objective, outputs: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return losses (n,) and their gradients in the outputs (n, c), by the formulas of Keras, in float64."""
    smoothing = objective.label_smoothing
    if isinstance(objective, SquaredError):
        return ((outputs - labels) ** 2).mean(axis=1), 2 * (outputs - labels) / outputs.shape[1]
    if isinstance(objective, IndependentSigmoids):
        targets = labels * (1 - smoothing) + 0.5 * smoothing
        losses = np.logaddexp(0, outputs) - targets * outputs
        return losses.mean(axis=1), (scipy.special.expit(outputs) - targets) / outputs.shape[1]
    targets = np.eye(outputs.shape[1])[labels] * (1 - smoothing) + smoothing / outputs.shape[1]
    losses = -(targets * scipy.special.log_softmax(outputs, axis=1)).sum(axis=1)
    return losses, scipy.special.softmax(outputs, axis=1) - targets


def naive_fit(objective, labels: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Return the optimum (4, c) of `1/n sum_i w_i loss_i + PENALTY ||W||^2`."""
    rows = ROWS[:MANY].astype(np.float64)

    def objective_at(flat: np.ndarray) -> tuple[float, np.ndarray]:
        layer = flat.reshape(start.shape)
        losses, gradients = naive_losses(objective, rows @ layer, labels)
        gradient = rows.T @ (weights[:, np.newaxis] * gradients) / MANY + 2 * PENALTY * layer
        return float(weights @ losses / MANY + PENALTY * (layer**2).sum()), gradient.ravel()

    found = scipy.optimize.minimize(
        objective_at, start.ravel(), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    return found.x.reshape(start.shape)


def trained(name: str) -> tuple[np.ndarray, InfluenceModel, tf.data.Dataset]:
    """Return a layer that minimises a weighted objective, the model of it, and its training set."""
    objective, labels, weights = TRAINED[name]
    width = 1 if isinstance(objective, SquaredError) else 3
    layer = naive_fit(objective, labels, weights, np.zeros((4, width)))
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(width, use_bias=False)])
    network.layers[0].set_weights([layer])
    model, train_set = InfluenceModel(network, loss_function=objective), dataset(ROWS[:MANY], labels, weights)
    return layer, model, train_set


@pytest.mark.parametrize("name", TRAINED)
def test_influence_is_what_retraining_with_the_weights_of_the_others_does(name):
    objective, labels, weights = TRAINED[name]
    layer, model, train_set = trained(name)
    zeros = tf.zeros(5, tf.int64)

    def losses(layer: np.ndarray) -> np.ndarray:
        return objective.evaluate(tf.constant(ROWS[MANY:] @ layer), zeros).numpy()

    others = [np.where(np.arange(MANY) == index, 0.0, weights) for index in range(LEFT_OUT)]
    truth = np.stack(
        [losses(naive_fit(objective, labels, own, layer)) - losses(layer) for own in others], axis=1
    )
    ihvp = ExactIHVP(model, train_set, damping=0.0, regularisation=2 * PENALTY)
    first, corrected = (
        calculator(model, train_set, ihvp, target=0)
        for calculator in (FirstOrderInfluenceCalculator, LeverageCorrectedInfluenceCalculator)
    )
    leverages = corrected.leverages((ROWS[:LEFT_OUT], labels[:LEFT_OUT], weights[:LEFT_OUT])).numpy()
    for calculator, is_compared in ((first, leverages < 0.08), (corrected, leverages >= 0)):
        found = values(calculator, dataset(ROWS[MANY:]))[:, :LEFT_OUT]
        assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] >= 0.98
        slope = (found * truth)[:, is_compared].sum() / (found**2)[:, is_compared].sum()
        assert is_compared.sum() >= 10 and abs(slope - 1) <= 0.1


@pytest.mark.parametrize("name", TRAINED)
def test_contributions_add_up_to_the_layer_that_the_weighted_objective_gives(name):
    layer, model, train_set = trained(name)
    outputs = ROWS[MANY:] @ layer
    for calculator in (
        RepresenterPointL2(model, train_set, target=0, lambda_regularization=PENALTY),
        RepresenterPointLJE(model, train_set, target=0),
    ):
        found = values(calculator, dataset(ROWS[MANY:]))
        np.testing.assert_allclose(found.sum(axis=1), outputs[:, 0], rtol=1e-4, atol=1e-4)
