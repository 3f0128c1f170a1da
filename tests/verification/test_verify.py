"""Predicted changes beside those that training again makes."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from verification_cases import (
    CLASSES,
    NUM_TEST,
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
    ExactIHVP,
    FeatureSimilarity,
    FirstOrderInfluenceCalculator,
    GradDot,
    InfluenceModel,
    NamedMethod,
    verify,
)
from deel_dualview._summaries import probability_text
from deel_dualview.calculators.last_layer import fit_last_layer
from deel_dualview.verification import Removal, Share, State, Verification


@pytest.fixture(scope="module")
def verified():
    return verify(first_order(), queries(), k=3, penalty=PENALTY)


def log_probabilities(removed, sample_weight=None):
    """The twin's log-probabilities of all queries, after training without some examples."""
    inputs, labels = examples()
    kept = np.setdiff1d(np.arange(NUM_TRAIN), removed)
    weights = optimum(inputs[:NUM_TRAIN], labels[:NUM_TRAIN], kept, sample_weight)
    return scipy.special.log_softmax(outputs(inputs[NUM_TRAIN:], weights), axis=1)


def test_the_changes_are_those_of_a_naive_twin_that_trains_again(verified):
    before = log_probabilities([])
    for item in verified.removals[::4]:
        expected = log_probabilities(item.removed)[item.query, item.explained]
        np.testing.assert_allclose(item.after.log_probability, expected, atol=1e-4)
        np.testing.assert_allclose(item.before.log_probability, before[item.query, item.explained], atol=1e-4)


def test_predictions_are_sums_of_influence_values_over_the_strongest_and_over_random_examples(verified):
    values = np.concatenate(list(first_order().estimate_influence_values_in_batches(queries())))
    assert len(verified.removals) == 3 * NUM_TEST
    for item in verified.removals:
        row = values[item.query]
        np.testing.assert_allclose(item.predicted, row[list(item.removed)].sum(), rtol=1e-4, atol=1e-6)
        assert len(set(item.removed)) == 3
        if item.group != "random":
            order = np.argsort(-row if item.group == "proponents" else row, kind="stable")
            assert set(item.removed) == set(order[:3])


def test_influence_functions_at_the_optimum_predict_the_changes_and_random_numbers_do_not(verified):
    pairs = np.array([(item.predicted, item.actual) for item in verified.removals])
    slope = (pairs[:, 0] @ pairs[:, 1]) / (pairs[:, 0] @ pairs[:, 0])
    assert 0.9 < slope < 1.4  # first order underestimates
    assert verified.rank_correlation.value > 0.97 and verified.rank_correlation.interval[0] > 0.9
    assert verified.correlation("proponents").value > 0.8
    random = verify(NamedMethod("random")(optimal_model(), train_set()), queries(), k=3, penalty=PENALTY)
    low, high = random.rank_correlation.interval
    assert low < random.rank_correlation.value < high < 0.7


def test_without_a_penalty_the_one_is_found_by_which_the_layer_is_the_models_own():
    found = verify(first_order(), queries(2), k=1)
    np.testing.assert_allclose(found.penalty, PENALTY, rtol=0.1)  # 8 halvings of 7 decades
    assert found.agreement == 1.0 and found.difference < 0.01


def test_a_layer_that_is_not_an_optimum_is_reported_as_far_from_the_models_own():
    model = linear_model(np.random.default_rng(1).normal(size=(5, CLASSES)))
    found = verify(GradDot(model, train_set()), queries(6), k=1)
    assert found.agreement < 1.0 and found.difference > 0.1
    assert "predicts the same for" in str(found)


def test_sample_weights_take_part_in_training_again():
    inputs, labels = examples()
    weights = np.random.default_rng(3).choice([0.0, 1.0, 3.0], NUM_TRAIN).astype(np.float32)
    train = batched(inputs[:NUM_TRAIN], labels[:NUM_TRAIN], weights)
    found = verify(GradDot(optimal_model(), train), queries(2), k=2, penalty=PENALTY)
    item = found.removals[0]
    expected = log_probabilities(item.removed, weights)[item.query, item.explained]
    np.testing.assert_allclose(item.after.log_probability, expected, atol=1e-4)


def test_the_order_of_batches_changes_nothing(verified):
    other = verify(first_order(), queries(size=NUM_TEST), k=3, penalty=PENALTY)
    for one, two in zip(verified.removals, other.removals, strict=True):
        assert one.removed == two.removed
        np.testing.assert_allclose(one.actual, two.actual, atol=1e-6)


KINDS = {
    "regression": (1, None, "mse", lambda inputs, labels: inputs[:, :1] * 2 + labels[:, np.newaxis]),
    "binary": (1, "sigmoid", "binary_crossentropy", lambda _, labels: np.minimum(labels, 1)),
    "labels": (3, "sigmoid", "binary_crossentropy", lambda _, labels: np.eye(3, dtype=np.float32)[labels]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_heads_that_are_no_softmax_are_trained_again_by_their_own_loss(kind):
    units, activation, loss, make_labels = KINDS[kind]
    inputs, labels = (part[:NUM_TRAIN] for part in examples())
    given = make_labels(inputs, labels)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])
    network.compile(loss=loss)
    model = InfluenceModel(network)
    extended = np.hstack([inputs, np.ones((NUM_TRAIN, 1), np.float32)])
    weights = fit_last_layer(model, extended, model.to_targets(given), penalty=PENALTY).weights
    network.layers[0].set_weights([weights[:-1], weights[-1]])
    train = batched(inputs, given)
    ihvp = ExactIHVP(model, train, regularisation=2 * PENALTY, damping=0.0)
    calculator = FirstOrderInfluenceCalculator(model, train, ihvp)
    found = verify(calculator, queries(6), k=2, penalty=PENALTY)
    assert found.rank_correlation.value > 0.9
    first = found.removals[0]
    assert (first.before.probability is None) == (kind == "regression")
    assert ("output 0" in found.sentence(0)) == (kind == "regression")
    if kind == "regression":  # ridge regression in closed form
        x = np.hstack([inputs.astype(np.float64), np.ones((NUM_TRAIN, 1))])
        kept = np.setdiff1d(np.arange(NUM_TRAIN), first.removed)
        gram = x[kept].T @ x[kept] / NUM_TRAIN + PENALTY * np.eye(5)
        weights = np.linalg.solve(gram, x[kept].T @ given[kept] / NUM_TRAIN)
        expected = outputs(examples()[0][NUM_TRAIN : NUM_TRAIN + 1], weights)[0]
        np.testing.assert_allclose(first.after.output, expected, rtol=1e-4)


def test_a_function_trains_the_network_on_the_examples_that_are_kept(verified):
    seen = []
    inputs, labels = (part[:NUM_TRAIN] for part in examples())

    def train_fn(kept):
        seen.append(kept)
        return linear_model(optimum(inputs, labels, kept))

    train = train_set()
    found = verify(GradDot(optimal_model(), train), queries(2), k=3, train_fn=train_fn)
    assert [len(kept) for kept in seen] == [NUM_TRAIN] + [NUM_TRAIN - 3] * 6 and found.num_trainings == 7
    for kept, item in zip(seen[1:], found.removals, strict=True):
        np.testing.assert_array_equal(kept, np.setdiff1d(np.arange(NUM_TRAIN), item.removed))
    assert (found.retrained, found.penalty) == ("network", None)
    by_head = verify(GradDot(optimal_model(), train), queries(2), k=3, penalty=PENALTY)
    for one, two in zip(found.removals, by_head.removals, strict=True):
        np.testing.assert_allclose(one.actual, two.actual, atol=1e-3)  # the twin in float64


def test_a_function_that_returns_no_model_is_refused():
    with pytest.raises(TypeError, match="train_fn"):
        verify(GradDot(optimal_model(), train_set()), queries(1), train_fn=len)


def test_a_frame_has_a_row_for_each_removal(verified):
    frame = verified.to_frame()
    assert len(frame) == 3 * NUM_TEST and set(frame.group) == {"proponents", "opponents", "random"}
    actual = np.log(frame.probability_before) - np.log(frame.probability_after)
    np.testing.assert_allclose(frame.actual, actual, atol=1e-9)


def test_too_few_predictions_have_no_rank_correlation(verified):
    few = Verification(**{**vars(verified), "removals": verified.removals[:9]})
    assert math.isnan(few.rank_correlation.value) and "too few predictions (3)" in str(few)


def removal(group, before, after, number=5, query=0):
    states = (State(0.0, math.log(probability), 3) for probability in (before, after))
    return Removal(query, group, tuple(range(number)), 3, 1.0, *states)


def test_predictions_that_lose_more_than_by_chance_are_counted_each_on_its_own(verified):
    # The second prediction changes more in all, but less without its proponents than without random examples.
    items = (
        removal("proponents", 0.98, 0.97, query=0),
        removal("random", 0.98, 0.98, query=0),
        removal("opponents", 0.98, 0.99, query=0),
        removal("proponents", 0.6, 0.4, query=1),
        removal("random", 0.6, 0.3, query=1),
        removal("proponents", 0.7, 0.7, query=2),
        removal("random", 0.7, 0.7, query=2),
        removal("random", 0.5, 0.4, query=3),
    )
    found = Verification(**{**vars(verified), "removals": items}).above_random
    assert (found.count, found.total) == (1, 3) and found.value == 1 / 3
    # Clopper and Pearson: at these shares one of three or more, or one or fewer, has a probability of 2.5 %.
    low, high = found.interval
    assert scipy.stats.binom.sf(0, 3, low) == pytest.approx(0.025, abs=1e-6)
    assert scipy.stats.binom.cdf(1, 3, high) == pytest.approx(0.025, abs=1e-6)
    assert "1 of 3" in str(Verification(**{**vars(verified), "removals": items}))
    none = Verification(**{**vars(verified), "removals": items[1:3]}).above_random
    assert none == Share(0, 0, (0.0, 1.0)) and math.isnan(none.value) and str(none) == "of none"


def test_influence_functions_name_what_matters_and_random_numbers_do_not(verified):
    assert verified.above_random.value == 1 and verified.above_random.total == NUM_TEST
    random = verify(NamedMethod("random")(optimal_model(), train_set()), queries(), k=3, penalty=PENALTY)
    assert random.above_random.interval[0] < 0.5


def test_a_name_is_needed_for_the_class_that_is_explained(verified):
    found = Verification(**{**vars(verified), "removals": (removal("random", 0.5, 0.4),)})  # of class 3
    with pytest.raises(ValueError, match="class_names"):
        found.sentence(0, ["red", "green", "blue"])


def other_network(units):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])


@pytest.mark.parametrize("units", [2, 5])
def test_a_train_fn_of_a_model_with_other_outputs_is_refused(units):
    with pytest.raises(ValueError, match=f"outputs={units}"):
        verify(first_order(), queries(1), k=1, train_fn=lambda kept: other_network(units))


def test_a_train_fn_that_trains_the_explained_model_is_refused():
    with pytest.raises(ValueError, match="a model of its own"):
        verify(first_order(), queries(1), k=1, train_fn=lambda kept: first_order().model.model)
    with pytest.raises(ValueError, match="a model of its own"):
        verify(first_order(), queries(1), k=1, train_fn=lambda kept: first_order().model)


def test_changes_that_are_all_the_same_have_no_order(verified):
    items = tuple(removal("proponents", 0.5, 0.5, query=query) for query in range(6))
    found = Verification(**{**vars(verified), "removals": items})
    assert "all changes are the same" in str(found)


@pytest.mark.parametrize("k", [NUM_TRAIN, NUM_TRAIN + 3])
def test_as_many_as_the_training_set_holds_cannot_be_removed(k):
    with pytest.raises(ValueError, match=f"k={k}, num_train={NUM_TRAIN}"):
        verify(first_order(), queries(1), k=k)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        (
            [removal("proponents", 0.98, 0.41), removal("random", 0.98, 0.97)],
            "Removing these 5 training examples lowers the probability of class cat from 0.98 to 0.41; "
            "5 random ones: 0.97.",
        ),
        (
            [removal("proponents", 0.98, 0.98, 1), removal("random", 0.98, 0.97, 1)],
            "Removing this training example leaves the probability of class cat at 0.98; a random one: 0.97.",
        ),
        (
            [removal("opponents", 0.5, 0.6)],
            "Removing these 5 opponents raises the probability of class cat from 0.50 to 0.60.",
        ),
    ],
)
def test_a_sentence_says_what_happened(verified, items, expected):
    one = Verification(**{**vars(verified), "removals": tuple(items)})
    assert one.sentence(0, ["", "", "", "cat"]) == expected
    with pytest.raises(ValueError, match="query=7"):
        one.sentence(7)


@pytest.mark.parametrize(
    ("probability", "text"), [(0.5, "0.50"), (0.9987, "0.9987"), (1.0, "1.000000"), (0.004, "0.0040")]
)
def test_probabilities_have_the_digits_that_distinguish_them(probability, text):
    assert probability_text(probability) == text


def unreadable():
    def elements():
        pytest.fail("The queries were read before the arguments were checked.")
        yield

    return tf.data.Dataset.from_generator(elements, output_signature=tf.TensorSpec((None, 4), tf.float32))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"k": 0}, "k"),
        ({"k": NUM_TRAIN}, "k"),
        ({"seed": -1}, "seed"),
        ({"penalty": -1.0}, "penalty"),
        ({"train_fn": "fit"}, "train_fn"),
        ({"train_fn": len, "penalty": 1.0}, "penalty"),
    ],
)
def test_bad_arguments_are_refused_before_queries_are_read(change, error):
    with pytest.raises((TypeError, ValueError), match=error):
        verify(first_order(), unreadable(), **change)


def test_a_model_without_a_linear_last_layer_needs_a_function():
    model = linear_model(np.ones((5, CLASSES)))
    network = keras.Sequential([*model.layers, keras.layers.Lambda(lambda z: z**3, name="cube")])
    network(np.zeros((1, 4), np.float32))
    calculator = FeatureSimilarity(InfluenceModel(network, feature_layer=network.layers[0].name), train_set())
    with pytest.raises(ValueError, match="train_fn"):
        verify(calculator, unreadable())
    with pytest.raises(TypeError, match="calculator"):
        verify(SimpleNamespace(), unreadable())
