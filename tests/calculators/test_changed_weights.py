"""A model that is trained further after a calculator was built is noticed at the next use."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from deel_dualview import (
    LRP,
    DualRelevance,
    DualView,
    ExactIHVP,
    FeatureSimilarity,
    FirstOrderInfluenceCalculator,
    GradDot,
    InfluenceModel,
    RepresenterPointL2,
    TracIn,
    Trak,
)
from deel_dualview.data.hashing import checksum

INPUTS = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
LABELS = np.arange(40) % 3
TRAIN = tf.data.Dataset.from_tensor_slices((INPUTS, LABELS)).batch(20)
QUERIES = TRAIN.take(1)


def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dense(3)]
    )


def fit(model):
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(INPUTS, LABELS, verbose=0)


def assign(model):
    model.layers[0].kernel.assign_add(tf.fill((6, 8), 1e-3))


def load(model):
    other = network()
    assign(other)
    model.set_weights(other.get_weights())


def call_in_training_mode(model):
    model(INPUTS, training=True)


CHANGES = [fit, assign, load, call_in_training_mode]
CALCULATORS = {
    "DualView": lambda model: DualView(model, TRAIN),
    "FeatureSimilarity": lambda model: FeatureSimilarity(model, TRAIN),
    "GradDot": lambda model: GradDot(model, TRAIN),
    "FirstOrder": lambda model: FirstOrderInfluenceCalculator(model, TRAIN),
    "RepresenterPointL2": lambda model: RepresenterPointL2(model, TRAIN),
    "Trak": lambda model: Trak(model, TRAIN),
}
USES = {
    "top_k": lambda calculator: next(iter(calculator.top_k(QUERIES))),
    "top_k_indices": lambda calculator: next(iter(calculator.top_k_indices(QUERIES))),
    "values": lambda calculator: next(iter(calculator.estimate_influence_values_in_batches(QUERIES))),
    "sparse values": lambda calculator: calculator.sparse_influence_values(QUERIES),
    "self-influence": lambda calculator: next(iter(calculator.compute_influence_values())),
    "vectors": lambda calculator: next(iter(calculator.compute_influence_vector())),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_kind_of_change_is_noticed(change):
    model = network()
    calculator = FeatureSimilarity(InfluenceModel(model), TRAIN)
    change(model)
    with pytest.raises(ValueError, match=r"weights have changed since the calculator was built"):
        USES["top_k"](calculator)


@pytest.mark.parametrize("make", CALCULATORS.values(), ids=CALCULATORS)
def test_every_use_of_every_calculator_notices(make):
    model = network()
    calculator = make(InfluenceModel(model))
    for use in USES.values():
        use(calculator)
    before = model.layers[0].kernel.numpy()
    assign(model)
    for use in USES.values():
        with pytest.raises(ValueError, match="build another calculator"):
            use(calculator)
    model.layers[0].kernel.assign(before)
    USES["top_k"](calculator)


def test_a_dataset_of_results_that_was_made_before_the_change_notices():
    model = network()
    results = GradDot(InfluenceModel(model), TRAIN).top_k(QUERIES)
    assign(model)
    with pytest.raises(ValueError, match="have changed"):
        next(iter(results))


def test_training_between_two_batches_of_results_is_noticed():
    model = network()
    calculator = DualView(InfluenceModel(model), TRAIN)
    results = iter(calculator.top_k(TRAIN, k=1))
    next(results)
    fit(model)
    with pytest.raises(ValueError, match="have changed"):
        next(results)


def test_other_surrogates_of_a_model_that_has_changed_are_refused():
    model = network()
    calculator = DualView(InfluenceModel(model), TRAIN)
    assign(model)
    with pytest.raises(ValueError, match="have changed"):
        calculator.fit_path([1.0])


def test_relevance_notices():
    model = network()
    relevance = DualRelevance(DualView(InfluenceModel(model), TRAIN))
    top = next(iter(relevance.calculator.top_k(QUERIES, k=1)))
    assign(model)
    with pytest.raises(ValueError, match="have changed"):
        relevance.of_pairs(top)
    with pytest.raises(ValueError, match="have changed"):
        next(iter(relevance.explain(QUERIES)))


def test_relevance_propagation_by_itself_notices_where_it_holds_folded_weights():
    inputs = keras.Input((6,))
    hidden = layers.BatchNormalization()(layers.Dense(5)(inputs))
    model = keras.Model(inputs, layers.Dense(3)(layers.ReLU()(hidden)))
    lrp = LRP(model)
    lrp.explain(INPUTS[:2])
    model.layers[2].beta.assign_add(tf.ones(5))
    with pytest.raises(ValueError, match="build another LRP"):
        lrp.explain(INPUTS[:2])
    LRP(model).explain(INPUTS[:2])


def test_the_message_names_the_weights_that_changed():
    model = network()
    calculator = GradDot(InfluenceModel(model), TRAIN)
    model.layers[-1].bias.assign(tf.ones(3))
    with pytest.raises(ValueError, match=rf"changed=\['{model.layers[-1].name}/bias'\], of='8 weights'"):
        USES["top_k"](calculator)


def test_a_change_of_any_checkpoint_is_noticed():
    first, last = network(), network()
    calculator = TracIn([InfluenceModel(first), InfluenceModel(last)], TRAIN)
    USES["top_k"](calculator)
    assign(first)
    with pytest.raises(ValueError, match="have changed"):
        USES["top_k"](calculator)


def test_an_inverse_hessian_from_before_the_change_is_refused():
    model = network()
    influence = InfluenceModel(model)
    ihvp = ExactIHVP(influence, TRAIN)
    assign(model)
    with pytest.raises(ValueError, match="have changed"):
        FirstOrderInfluenceCalculator(influence, TRAIN, ihvp)
    with pytest.raises(ValueError, match="inverse Hessian was built"):
        ihvp.solve(tf.ones((1, ihvp.size)))


def test_a_change_of_an_equal_model_that_the_inverse_hessian_belongs_to_is_noticed():
    model, twin = network(), network()
    calculator = FirstOrderInfluenceCalculator(
        InfluenceModel(model), TRAIN, ExactIHVP(InfluenceModel(twin), TRAIN)
    )
    USES["top_k"](calculator)
    assign(twin)
    with pytest.raises(ValueError, match="have changed"):
        USES["top_k"](calculator)


def test_weights_in_half_precision_and_empty_ones_have_checksums():
    arrays = [tf.constant([1.5], dtype).numpy() for dtype in (tf.bfloat16, tf.float16, tf.float32)]
    assert len({checksum(array) for array in [*arrays, np.empty((0, 3)), np.array(2.0)]}) == 5


class Counter(layers.Layer):
    def build(self, shape):
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.assign_add(1.0)
        return inputs


def test_what_keras_and_layers_change_by_themselves_is_no_change():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.Dropout(0.5), Counter(), layers.Dense(3)]
    )
    calculator = GradDot(InfluenceModel(model), TRAIN)
    model(INPUTS, training=True)
    model.predict(INPUTS, verbose=0)
    USES["top_k"](calculator)


def test_a_model_that_is_trained_before_the_calculator_is_built_is_no_reason_to_refuse():
    model = network()
    influence = InfluenceModel(model)
    influence.features(INPUTS)
    fit(model)
    USES["top_k"](DualView(influence, TRAIN))
