"""Whether what a method assumes holds: repeatable, at an optimum, at rest, the same with another seed."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
from verification_cases import (
    CLASSES,
    NUM_TRAIN,
    PENALTY,
    batched,
    examples,
    first_order,
    linear_model,
    optimal_model,
    optimum,
    outputs,
    queries,
    train_set,
)

from deel_dualview import (
    Checkpoints,
    GradDot,
    InfluenceModel,
    NamedMethod,
    UnrolledInfluenceCalculator,
    diagnose,
)
from deel_dualview.evaluation import record_training
from deel_dualview.verification import diagnosis


def naive_gradient(weights, sample_weight=None):
    """Norm of the mean gradient over the mean norm, one example at a time."""
    inputs, labels = (part[:NUM_TRAIN] for part in examples())
    gradients = []
    for i, (x, y) in enumerate(zip(inputs, labels, strict=True)):
        error = scipy.special.softmax(outputs(x[np.newaxis], weights)[0]) - np.eye(CLASSES)[y]
        gradients.append(np.outer(error, [*x, 1.0]) * (1 if sample_weight is None else sample_weight[i]))
    return np.linalg.norm(np.mean(gradients, axis=0)) / np.mean([np.linalg.norm(g) for g in gradients])


@pytest.mark.parametrize("penalty", [1e-4, PENALTY, None])
def test_the_gradient_that_is_left_is_that_of_a_naive_twin_and_vanishes_at_the_optimum(penalty):
    inputs, labels = (part[:NUM_TRAIN] for part in examples())
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(5, CLASSES)) if penalty is None else optimum(inputs, labels, penalty=penalty)
    found = diagnose(GradDot(linear_model(weights), train_set()), queries(2))
    np.testing.assert_allclose(found.gradient, naive_gradient(weights), rtol=1e-3, atol=1e-5)
    assert (found.gradient < 0.01) == (penalty == 1e-4)


def test_weights_take_part_in_the_gradient():
    inputs, labels = (part[:NUM_TRAIN] for part in examples())
    weights = np.random.default_rng(1).choice([0.0, 2.0], NUM_TRAIN).astype(np.float32)
    found = diagnose(GradDot(optimal_model(), batched(inputs, labels, weights)), queries(2))
    expected = naive_gradient(optimum(inputs, labels), weights)
    np.testing.assert_allclose(found.gradient, expected, rtol=1e-3)


def test_values_of_a_deterministic_method_repeat_and_agree_with_themselves():
    found = diagnose(first_order(), queries(), other=first_order(), k=4)
    assert found.repeatability == 0.0 and found.overlap == 1.0 and found.last_change is None
    np.testing.assert_allclose(found.rank_correlation, 1.0)
    assert "4 proponents in common" in str(found)


def test_another_method_agrees_as_far_as_a_naive_twin_says():
    other = NamedMethod("random")(optimal_model(), train_set())
    found = diagnose(first_order(), queries(), other=other, k=7)
    one, two = (
        np.concatenate(list(own.estimate_influence_values_in_batches(queries())))
        for own in (first_order(), other)
    )
    expected = np.mean([scipy.stats.spearmanr(*rows).statistic for rows in zip(one, two, strict=True)])
    np.testing.assert_allclose(found.rank_correlation, expected, atol=1e-6)
    common = [
        len(set(np.argsort(-a)[:7]) & set(np.argsort(-b)[:7])) / 7 for a, b in zip(one, two, strict=True)
    ]
    np.testing.assert_allclose(found.overlap, np.mean(common))


def checkpoints(*scales):
    models = [InfluenceModel(linear_model(scale * np.ones((5, CLASSES)))) for scale in scales]
    return Checkpoints(models, [0.1] * len(models), list(range(1, len(models) + 1)))


def test_the_last_change_is_in_units_of_the_mean_one():
    found = diagnose(first_order(), queries(1), checkpoints=checkpoints(0.0, 1.0, 1.5, 1.75))
    np.testing.assert_allclose(found.last_change, 0.25 / (1.75 / 3), rtol=1e-5)
    assert "of the mean one" in str(found)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"calculator": 3}, "calculator"),
        ({"other": "trak"}, "other"),
        ({"checkpoints": []}, "checkpoints"),
        ({"checkpoints": checkpoints(0.0, 1.0)}, "3 checkpoints"),
        ({"k": 0}, "k"),
    ],
)
def test_bad_arguments_are_refused(change, error):
    arguments = {"calculator": first_order()} | change
    with pytest.raises((TypeError, ValueError), match=error):
        diagnose(arguments.pop("calculator"), queries(1), **arguments)


def test_a_calculator_of_a_model_with_other_outputs_is_refused():
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5)])
    with pytest.raises(ValueError, match="same outputs"):
        diagnose(first_order(), queries(1), other=GradDot(network, train_set()))


def test_a_calculator_of_another_training_set_is_refused():
    inputs, labels = examples()
    with pytest.raises(ValueError, match="same training set"):
        diagnose(first_order(), queries(1), other=GradDot(optimal_model(), batched(inputs[:9], labels[:9])))


def recorded(rate, activation):
    inputs, labels = (part[:NUM_TRAIN] for part in examples())
    model = keras.Sequential(
        [keras.Input((inputs.shape[1],)), keras.layers.Dense(32, activation), keras.layers.Dense(CLASSES)]
    )
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    training = record_training(
        model,
        batched(inputs, labels),
        epochs=6,
        batch_size=8,
        optimizer=keras.optimizers.SGD(rate),
        loss_function=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return UnrolledInfluenceCalculator(training.model, batched(inputs, labels), training=training)


def test_a_smooth_training_is_told_from_one_that_amplifies_small_changes():
    smooth, rough = (
        diagnose(recorded(*settings), queries(12)).smoothness for settings in ((0.02, "tanh"), (4.0, "relu"))
    )
    assert smooth > 0.99 and rough < 0.9


def test_smoothness_is_the_rank_correlation_of_the_changes(monkeypatch):
    monkeypatch.setattr(diagnosis, "_NUM_REMOVALS", 1)
    calculator = recorded(4.0, "relu")
    training = calculator.training
    removed = np.random.default_rng(0).choice(NUM_TRAIN, max(1, round(NUM_TRAIN / 100)), replace=False)
    inputs = np.concatenate([np.asarray(batch[0]) for batch in queries(12)])
    half = np.ones(NUM_TRAIN, np.float32)
    half[removed] = 0.5
    changes = [
        (training.outputs(inputs, training.retrain(weights)) - training.outputs(inputs)).ravel()
        for weights in (training.without(removed), half)
    ]
    expected = scipy.stats.spearmanr(*changes).statistic
    found = diagnose(calculator, queries(12))
    assert found.smoothness == pytest.approx(expected, abs=1e-6)
    assert "smoothness of the training" in str(found)
