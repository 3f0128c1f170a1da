"""Models with several outputs: the one that is named is explained by its own layer, loss and labels."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases_objectives import NUM_FEATURES, NUM_TEST, NUM_TRAIN, PENALTY, fit

from deel_dualview import (
    DualView,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    GradDot,
    InfluenceModel,
    SoftmaxCrossEntropy,
    SquaredError,
    audit,
    compare,
)

generator = np.random.default_rng(0)
INPUTS = generator.normal(size=(NUM_TRAIN + NUM_TEST, NUM_FEATURES)).astype(np.float32)
PRICES = (INPUTS @ generator.normal(size=(NUM_FEATURES, 1)) + generator.normal(size=(len(INPUTS), 1))).astype(
    np.float32
)
KINDS = (INPUTS @ generator.normal(size=(NUM_FEATURES, 3))).argmax(axis=1)
LABELS: dict[str, Any] = {"kind": KINDS, "price": PRICES}


class Subclassed(keras.Model):
    """Calls a Functional model, in Python."""

    def __init__(self, inner: keras.Model) -> None:
        super().__init__()
        self.inner = inner

    def call(self, inputs: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        kind, price = self.inner(inputs, training=training)
        return {"kind": kind, "price": price}


def make_model(form: str = "list") -> keras.Model:
    """Return a model with a layer for prices at the optimum of its penalised loss."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((NUM_FEATURES,))
    hidden = keras.layers.Dense(5, "tanh")(inputs)
    outputs = [
        keras.layers.Dense(3, activation="softmax", name="kind")(hidden),
        keras.layers.Dense(1, use_bias=False, name="price")(inputs),
    ]
    model = keras.Model(
        inputs, dict(zip(["kind", "price"], outputs, strict=True)) if form == "dict" else outputs
    )
    model.get_layer("price").set_weights([fit(SquaredError(), INPUTS[:NUM_TRAIN], PRICES[:NUM_TRAIN])])
    model = Subclassed(model) if form == "subclassed" else model
    model.compile(loss={"kind": "sparse_categorical_crossentropy", "price": "mse"})
    return model


def data(form: str, part: slice) -> tf.data.Dataset:
    """Return examples with labels in a dict, in a tuple, or of the price alone."""
    labels = {name: values[part] for name, values in LABELS.items()}
    given = {"dict": labels, "tuple": tuple(labels.values()), "alone": labels["price"]}[form]
    return tf.data.Dataset.from_tensor_slices((INPUTS[part], given)).batch(25)


TRAIN, TEST = slice(0, NUM_TRAIN), slice(NUM_TRAIN, None)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return make_model()


def values(calculator) -> np.ndarray:
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(data("dict", TEST))))


def test_without_a_name_the_error_lists_the_outputs(model):
    with pytest.raises(ValueError, match=r"InfluenceModel\(model, output=NAME\).*kind, price"):
        InfluenceModel(model)
    with pytest.raises(ValueError, match="output=NAME.*kind, price"):
        InfluenceModel(make_model("subclassed")).prepare(tf.constant(INPUTS))


@pytest.mark.parametrize("output", ["weight", 2, -1])
def test_an_unknown_output_is_refused(model, output):
    with pytest.raises(ValueError, match="must be one of the model's outputs: kind, price"):
        InfluenceModel(model, output=output)


def test_an_output_is_a_name_or_an_index(model):
    with pytest.raises(TypeError, match="name of one of the model's outputs"):
        InfluenceModel(model, output=1.5)


@pytest.mark.parametrize("form", ["list", "dict", "subclassed"])
def test_each_output_has_its_own_layer_and_compiled_loss(form):
    price, kind = (InfluenceModel(make_model(form), output=name) for name in ("price", "kind"))
    for own in (price, kind):
        own.prepare(tf.constant(INPUTS))
    assert price.objective == SquaredError() and price.num_features == NUM_FEATURES
    assert kind.objective == SoftmaxCrossEntropy() and kind.num_features == 5 and kind.num_classes == 3
    assert price.fingerprint != kind.fingerprint


def test_an_index_is_the_same_as_its_name(model):
    assert InfluenceModel(model, output=1).fingerprint == InfluenceModel(model, output="price").fingerprint


def test_influence_is_what_retraining_without_the_example_does_to_the_named_output(model):
    own, train_set = InfluenceModel(model, output="price"), data("dict", TRAIN)
    exact = ExactIHVP(own, train_set, damping=0.0, regularisation=2 * PENALTY)
    found = values(FirstOrderInfluenceCalculator(own, train_set, exact))
    truth = np.stack([_price_without(None) - _price_without(index) for index in range(NUM_TRAIN)], axis=1)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] >= 0.98
    assert 0.9 <= (found * truth).sum() / (found**2).sum() <= 1.25


@pytest.mark.parametrize("labels", ["dict", "tuple", "alone"])
@pytest.mark.parametrize("output", ["price", 1])
def test_labels_are_found_by_name_or_in_the_order_of_the_outputs(model, output, labels):
    (element, *_) = data(labels, TRAIN)
    np.testing.assert_array_equal(InfluenceModel(model, output=output).to_targets(element[1]), PRICES[:25])


def test_labels_in_a_tuple_are_refused_where_outputs_have_no_order():
    (element, *_) = data("tuple", TRAIN)
    with pytest.raises(ValueError, match="no entry of this output"):
        InfluenceModel(make_model("subclassed"), output="price").own_labels(element[1])


def _price_without(left_out: int | None) -> np.ndarray:
    kept = np.delete(np.arange(NUM_TRAIN), [] if left_out is None else [left_out])
    weights = fit(SquaredError(), INPUTS[kept], PRICES[kept], PENALTY * NUM_TRAIN / len(kept))
    return (INPUTS[TEST] @ weights)[:, 0]


def test_an_output_is_explained_as_a_model_of_this_output_alone(model):
    alone = keras.Model(model.input, model.get_layer("kind").output)
    expected = GradDot(alone, tf.data.Dataset.from_tensor_slices((INPUTS[TRAIN], KINDS[TRAIN])).batch(25))
    found = GradDot(InfluenceModel(model, output="kind"), data("dict", TRAIN))
    np.testing.assert_array_equal(values(found), values(expected))


def test_results_carry_the_labels_of_all_outputs(model):
    calculator = DualView(InfluenceModel(model, output="kind"), data("dict", TRAIN), target="label")
    (top,) = calculator.top_k(data("dict", TEST), k=3)
    np.testing.assert_array_equal(top.training_samples[1]["price"], PRICES[top.training_indices])
    frame = top.to_frame()
    np.testing.assert_array_equal(frame["training_label_kind"], KINDS[frame["training_index"]])
    assert "label_price" in top._repr_html_()


def test_labels_without_the_output_are_refused(model):
    train_set = data("dict", TRAIN).map(lambda inputs, labels: (inputs, {"kind": labels["kind"]}))
    with pytest.raises(ValueError, match="labels have no entry of this output.*price"):
        GradDot(InfluenceModel(model, output="price"), train_set)


def test_labels_of_several_outputs_are_refused_for_a_model_of_one(model):
    alone = keras.Model(model.input, model.get_layer("kind").output)
    with pytest.raises(ValueError, match="labels of a model with one output must be one tensor"):
        GradDot(alone, data("dict", TRAIN))


def test_audits_and_comparisons_take_a_named_output(model):
    own = InfluenceModel(model, output="kind")
    train, test = data("dict", TRAIN), data("dict", TEST)
    report = audit(own, train, test, k=2, method="graddot", relevance=None, progress=False)
    assert report.overview.num_train == NUM_TRAIN
    comparison = compare(own, train, test, methods=["graddot", "gradcos"], k=2, progress=False)
    assert comparison.num_train == NUM_TRAIN
