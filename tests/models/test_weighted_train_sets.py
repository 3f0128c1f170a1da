"""Training sets that are given their sample weights beside them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deel_dualview
from deel_dualview import data
from deel_dualview.models.train_sets import with_own_labels, with_sample_weight

GENERATOR = np.random.default_rng(0)
INPUTS, LABELS = GENERATOR.normal(size=(30, 3)).astype("float32"), np.arange(30) % 2
WEIGHTS = GENERATOR.uniform(0.5, 2.0, 30).astype("float32")


def train_set(batch_size=7):
    return tf.data.Dataset.from_tensor_slices((INPUTS, LABELS, np.arange(100, 130))).batch(batch_size)


def test_every_example_gets_its_own_weight_and_keeps_its_id():
    batches = [data.unpack(element) for element in with_sample_weight(train_set(), WEIGHTS)]
    np.testing.assert_array_equal(np.concatenate([batch.sample_weight for batch in batches]), WEIGHTS)
    np.testing.assert_array_equal(np.concatenate([batch.ids for batch in batches]), np.arange(100, 130))


@pytest.mark.parametrize("num_weights", [29, 31])
def test_another_number_of_weights_than_examples_is_refused(num_weights):
    with pytest.raises(ValueError, match="one weight for each training example"):
        list(with_sample_weight(train_set(), np.ones(num_weights)))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full(30, -1.0), "not negative"),
        (np.full(30, np.nan), "finite"),
        (np.ones((30, 2)), "one number for each"),
        (["a"] * 30, "one number for each"),
    ],
    ids=["negative", "NaN", "two columns", "text"],
)
def test_weights_that_are_none_are_refused_before_the_set_is_read(weights, message):
    with pytest.raises(ValueError, match=message):
        with_sample_weight(train_set(), weights)


def test_weights_are_given_once():
    with pytest.raises(ValueError, match="not both"):
        with_sample_weight(with_sample_weight(train_set(), WEIGHTS), WEIGHTS)


def test_weights_stay_where_the_labels_of_one_output_are_taken():
    inputs = keras.Input((3,))
    outputs = {"first": keras.layers.Dense(2)(inputs), "second": keras.layers.Dense(2)(inputs)}
    model = deel_dualview.InfluenceModel(keras.Model(inputs, outputs), output="second")
    both = tf.data.Dataset.from_tensor_slices(
        (INPUTS, {"first": LABELS, "second": 1 - LABELS}, {"sample_weight": WEIGHTS, "ids": LABELS})
    )
    batch = data.unpack(next(iter(with_own_labels(model, both.batch(30)))))
    np.testing.assert_array_equal(batch.labels, 1 - LABELS)
    np.testing.assert_array_equal(batch.sample_weight, WEIGHTS)


def test_an_audit_takes_the_weights_as_those_of_the_training_set():
    keras.utils.set_random_seed(0)
    labels = (INPUTS[:, 0] > 0).astype("int64")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    settings = {"method": "graddot", "progress": False, "relevance": None}
    beside = deel_dualview.audit(
        model, (INPUTS, labels), (INPUTS[:10], labels[:10]), sample_weight=WEIGHTS, **settings
    )
    inside = deel_dualview.audit(
        model, (INPUTS, labels, {"sample_weight": WEIGHTS}), (INPUTS[:10], labels[:10]), **settings
    )
    without = deel_dualview.audit(model, (INPUTS, labels), (INPUTS[:10], labels[:10]), **settings)
    found, expected, others = (one.attributions.toarray() for one in (beside, inside, without))
    np.testing.assert_array_equal(found, expected)
    assert np.abs(found - others).max() > 0.01 * np.abs(others).max()
