"""One prediction without some training examples: what is predicted, and how many of them flip it."""

import dataclasses

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from verification_cases import (
    NUM_TRAIN,
    PENALTY,
    examples,
    first_order,
    optimal_model,
    optimum,
    outputs,
    queries,
    query,
    train_set,
)

from deel_dualview import GradDot, SecondOrderInfluenceCalculator, smallest_flip, verify, what_if

REMOVED = [3, 17, 40, 66]


@pytest.fixture(scope="module")
def verified():
    return verify(first_order(), queries(8), k=2, penalty=PENALTY)


def values_of(calculator, position):
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(query(position))))[0]


def test_the_influence_of_a_group_is_the_sum_of_that_of_its_examples():
    found = what_if(first_order(), query(2), REMOVED)
    np.testing.assert_allclose(found.predicted, values_of(first_order(), 2)[REMOVED].sum(), rtol=1e-5)
    assert found.removed == tuple(REMOVED) and found.fall is None and found.probability is None
    assert "verification=" in str(found)


def test_to_second_order_it_is_that_of_the_group_and_nearer_to_the_truth():
    first = first_order()
    second = SecondOrderInfluenceCalculator(first.model, train_set(), first.ihvp)
    removed = np.arange(0, NUM_TRAIN, 4)
    inputs, labels = (part[:NUM_TRAIN] for part in examples())
    group = train_set().unbatch().enumerate().filter(lambda i, _: i % 4 == 0).map(lambda _, e: e).batch(8)
    errors = []
    for calculator in (first, second):
        found = what_if(calculator, query(0), removed)
        (expected,) = calculator.estimate_influence_values_group(query(0), group)
        np.testing.assert_allclose(found.predicted, expected[0], rtol=1e-4)
        kept = np.setdiff1d(np.arange(NUM_TRAIN), removed)
        before, after = (
            outputs(examples()[0][NUM_TRAIN:], optimum(inputs, labels, part))[0]
            for part in (np.arange(NUM_TRAIN), kept)
        )
        losses = [np.log(np.exp(z - z[found.explained]).sum()) for z in (before, after)]
        errors.append(abs(found.predicted - (losses[1] - losses[0])))
    assert errors[1] < errors[0]


def test_a_verification_gives_the_unit_and_the_error_bar(verified):
    found = what_if(first_order(), query(9), REMOVED[:2], verification=verified)
    chosen = [item for item in verified.removals if item.group != "random"]
    predicted, actual = (
        np.array([getattr(item, name) for item in chosen]) for name in ("predicted", "actual")
    )
    slope = (predicted @ actual) / (predicted @ predicted)
    np.testing.assert_allclose(found.fall, slope * found.predicted)
    assert np.mean(np.abs(actual - slope * predicted) <= found.error + 1e-12) >= 0.8
    middle, low, high = found.probability
    np.testing.assert_allclose(middle, np.exp(found.now.log_probability - found.fall))
    assert low < middle < high
    # Twice as many examples as there.
    wider = what_if(first_order(), query(9), REMOVED, verification=verified)
    np.testing.assert_allclose(wider.error, 2 * found.error)


def test_too_few_removals_give_no_error_bar(verified):
    few = dataclasses.replace(verified, removals=verified.removals[:9])
    assert what_if(first_order(), query(9), REMOVED, verification=few).error is None


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"remove": []}, "remove"),
        ({"remove": None}, "remove"),
        ({"remove": [1, 1]}, "remove"),
        ({"remove": [NUM_TRAIN]}, "remove"),
        ({"remove": [0.5]}, "remove"),
        ({"remove": range(NUM_TRAIN)}, "remove"),
        ({"remove": 3}, "a list of positions"),
        ({"remove": {3, "a"}}, "a list of positions"),
        ({"remove": np.ones(NUM_TRAIN, bool)}, "a list of positions"),
        ({"query": queries(2)}, "one evaluated example"),
        ({"verification": 3}, "verification"),
        ({"calculator": "dualview"}, "calculator"),
    ],
)
def test_bad_arguments_are_refused(change, error):
    arguments = {"calculator": first_order(), "query": query(0), "remove": [1]} | change
    with pytest.raises((TypeError, ValueError), match=error):
        what_if(arguments.pop("calculator"), **arguments)


def test_a_verification_of_another_method_or_training_set_is_refused(verified):
    with pytest.raises(ValueError, match="same method"):
        what_if(GradDot(optimal_model(), train_set()), query(0), [1], verification=verified)
    other = dataclasses.replace(verified, num_train=NUM_TRAIN + 1)
    with pytest.raises(ValueError, match="same training set"):
        what_if(first_order(), query(0), [1], verification=other)


@pytest.mark.parametrize("kind", [set, np.array, pd.Series, tf.constant, tuple])
def test_positions_may_be_of_any_kind_of_list(kind):
    assert sorted(what_if(first_order(), query(2), kind(REMOVED)).removed) == REMOVED


def least_certain():
    inputs, _ = examples()
    logits = np.sort(optimal_model().logits(inputs[NUM_TRAIN:]).numpy(), axis=1)
    return int((logits[:, -1] - logits[:, -2]).argmin())


@pytest.mark.parametrize("position", [0, 4, 7, None])
def test_the_smallest_set_that_flips_a_prediction_does_so_and_one_fewer_does_not(position):
    position = least_certain() if position is None else position
    found = smallest_flip(first_order(), query(position), penalty=PENALTY)
    order = np.argsort(-values_of(first_order(), position), kind="stable")
    inputs, labels = (part[:NUM_TRAIN] for part in examples())
    size = found.num_tried
    assert size > 0 and set(found.removed) <= set(order[:size])

    def predicted_without(removed):
        kept = np.setdiff1d(np.arange(NUM_TRAIN), removed)
        return outputs(examples()[0][NUM_TRAIN + position], optimum(inputs, labels, kept)).argmax()

    assert predicted_without(order[:size]) != found.prediction
    assert predicted_without(order[: size - 1]) == found.prediction == found.before.prediction
    assert predicted_without(found.removed) == found.after.prediction != found.prediction
    for member in found.removed:
        assert predicted_without(np.setdiff1d(found.removed, [member])) == found.prediction
    assert f"class {found.after.prediction} is predicted instead of {found.prediction}" in str(found)


def test_members_that_are_not_needed_are_put_back():
    """The second proponent alone flips the prediction; in the order of influence it takes the first two."""
    trained = []

    def train_fn(kept):
        trained.append(kept)
        twin = keras.models.clone_model(optimal_model().model)
        sign = 1 if second in kept else -1
        twin.set_weights([sign * array for array in optimal_model().model.get_weights()])
        return twin

    first, second = (int(one) for one in np.argsort(-values_of(first_order(), 0), kind="stable")[:2])
    found = smallest_flip(first_order(), query(0), train_fn=train_fn)
    assert found.removed == (second,) and found.num_tried == 2
    assert found.num_trainings == len(trained) == 4 and first in trained[-1]
    assert "Without 1 of the 2 strongest proponents" in str(found)


def test_that_no_set_flips_a_prediction_is_an_answer():
    inputs, _ = examples()
    certain = int(optimal_model().logits(inputs[NUM_TRAIN:]).numpy().max(axis=1).argmax())
    found = smallest_flip(first_order(), query(certain), most=1, penalty=PENALTY)
    assert found.removed is None and found.num_tried == 1
    assert "stays predicted without the strongest proponent" in str(found)
    assert "Other sets were not tried" in str(found)


def test_a_prediction_that_training_again_does_not_repeat_needs_no_removal():
    found = smallest_flip(first_order(), query(least_certain()), penalty=1e3)
    other = smallest_flip(
        GradDot(optimal_model(), train_set()), query(0), train_fn=lambda kept: negated(optimal_model().model)
    )
    assert other.removed == () and other.num_trainings == 1
    assert "without any removal" in str(other) and found.num_trainings >= 1


def negated(model):
    twin = keras.models.clone_model(model)
    twin.set_weights([-array for array in model.get_weights()])
    return twin


def test_only_predictions_of_classifiers_flip():
    calculator = GradDot(optimal_model(), train_set(), target=1)
    with pytest.raises(ValueError, match="target"):
        smallest_flip(calculator, query(0))
    with pytest.raises(TypeError, match="most"):
        smallest_flip(first_order(), query(0), most=1.5)
