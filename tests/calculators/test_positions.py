"""Models with an output at each position: every pair of an example and a position is a training example."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import (
    DiskStore,
    DualView,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    GradDot,
    InfluenceModel,
    TracIn,
    audit,
    label_issues,
)

layers = keras.layers
NUM_TRAIN, NUM_TEST, STEPS, CLASSES = 12, 3, 5, 3
SEQUENCE, IMAGE = (STEPS, 4), (3, 4, 2)


def sequence_model(*head: keras.Layer) -> keras.Model:
    hidden = [layers.Masking(), layers.Dense(6, "tanh")]
    return keras.Sequential([keras.Input(SEQUENCE), *hidden, *head])


def image_model(*head: keras.Layer) -> keras.Model:
    return keras.Sequential(
        [keras.Input(IMAGE), layers.Conv2D(4, 2, padding="same", activation="relu"), *head]
    )


MODELS = {
    "steps": lambda: sequence_model(layers.Dense(CLASSES, activation="softmax")),
    "steps, logits": lambda: sequence_model(layers.Dense(CLASSES), layers.Activation("softmax")),
    "time distributed": lambda: sequence_model(
        layers.TimeDistributed(layers.Dense(CLASSES, activation="softmax"))
    ),
    "temperature": lambda: sequence_model(layers.Dense(CLASSES), layers.Rescaling(0.5)),
    "pixels": lambda: image_model(layers.Conv2D(CLASSES, 1, activation="softmax")),
    "pixels of patches": lambda: image_model(layers.Conv2D(CLASSES, 3, padding="same", activation="softmax")),
    "pixels, flat": lambda: image_model(layers.Conv2D(CLASSES, 1), layers.Reshape((12, CLASSES))),
    "convolution in time": lambda: keras.Sequential(
        [keras.Input(SEQUENCE), layers.Dense(6), layers.Conv1D(CLASSES, 3, padding="causal")]
    ),
    "binary pixels": lambda: image_model(layers.Conv2D(1, 1, activation="sigmoid")),
}


class Case:
    """A model with its data, and the same data as rows: features and labels of the pairs that count."""

    def __init__(self, name: str) -> None:
        keras.utils.set_random_seed(0)
        self.model = MODELS[name]()
        shape = tuple(self.model.output_shape[1:-1])
        generator = np.random.default_rng(0)
        inputs = generator.normal(size=(NUM_TRAIN + NUM_TEST, *self.model.input_shape[1:])).astype(np.float32)
        num_classes = max(2, self.model.output_shape[-1])
        labels = generator.integers(0, num_classes, (NUM_TRAIN + NUM_TEST, *shape))
        labels[0].ravel()[:2] = -1  # (a view, like that of the next line)
        self.mask = np.ones(labels.shape, bool)
        if isinstance(self.model.layers[0], layers.Masking):
            inputs[1, 3:] = 0.0
            self.mask[1, 3:] = False
        self.inputs, self.labels = inputs, labels
        self.position = tuple(1 for _ in shape)
        self.own = InfluenceModel(self.model, position=self.position if len(shape) > 1 else 1)
        self.own.prepare(tf.constant(inputs))
        features = self.own.forward(tf.constant(inputs))[0].numpy().reshape(*labels.shape, -1)
        train = slice(0, NUM_TRAIN)
        self.is_kept = (self.mask & (labels >= 0))[train]
        self.rows, self.row_labels = features[train][self.is_kept], labels[train][self.is_kept]
        self.query_rows = features[NUM_TRAIN:][(slice(None), *self.position)]
        self.flat = self._flat_model(features.shape[-1])

    def _flat_model(self, width: int) -> InfluenceModel:
        """Return a model of rows that is the last layer, with what follows it."""
        last = next(layer for layer in reversed(self.model.layers) if layer.weights)
        kernel, bias = last.get_weights()
        dense = layers.Dense(kernel.shape[-1], activation="sigmoid" if kernel.shape[-1] == 1 else None)
        after = [layer for layer in self.model.layers if isinstance(layer, layers.Rescaling)]
        model = keras.Sequential([keras.Input((width,)), dense, *(layers.Rescaling(0.5) for _ in after)])
        dense.set_weights([kernel.reshape(width, -1), bias])
        return InfluenceModel(model)

    def train_set(self, batch_size: int = 5) -> tf.data.Dataset:
        kept = slice(0, NUM_TRAIN)
        return tf.data.Dataset.from_tensor_slices((self.inputs[kept], self.labels[kept])).batch(batch_size)

    def test_set(self) -> tf.data.Dataset:
        parts = self.inputs[NUM_TRAIN:], self.labels[NUM_TRAIN:]
        return tf.data.Dataset.from_tensor_slices(parts).batch(2)

    def flat_train_set(self) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((self.rows, self.row_labels)).batch(50)

    def flat_test_set(self) -> tf.data.Dataset:
        labels = self.labels[NUM_TRAIN:][(slice(None), *self.position)]
        return tf.data.Dataset.from_tensor_slices((self.query_rows, labels)).batch(50)


@pytest.fixture(scope="module", params=MODELS)
def case(request) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def steps() -> Case:
    return Case("steps")


def values(calculator, dataset) -> np.ndarray:
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(dataset)))


def test_gradients_are_those_of_the_rows_that_count(case):
    found = values(GradDot(case.own, case.train_set()), case.test_set())
    expected = values(GradDot(case.flat, case.flat_train_set()), case.flat_test_set())
    assert found.shape == (NUM_TEST, case.is_kept.sum())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def first_order(model: InfluenceModel, train_set: tf.data.Dataset) -> FirstOrderInfluenceCalculator:
    return FirstOrderInfluenceCalculator(model, train_set, ExactIHVP(model, train_set, damping=0.01))


def test_influence_is_that_of_a_naive_computation_in_float64(steps):
    rows, labels = np.hstack([steps.rows, np.ones((len(steps.rows), 1))]).astype(np.float64), steps.row_labels
    queries = np.hstack([steps.query_rows, np.ones((NUM_TEST, 1))]).astype(np.float64)
    weights = np.vstack(steps.model.layers[-1].get_weights()).astype(np.float64)
    probabilities, query_probabilities = (softmax(part @ weights) for part in (rows, queries))
    gradients = np.einsum("nc,nd->ncd", probabilities - np.eye(CLASSES)[labels], rows).reshape(len(rows), -1)
    explained = np.eye(CLASSES)[query_probabilities.argmax(axis=1)]
    of_queries = np.einsum("nc,nd->ncd", query_probabilities - explained, queries).reshape(NUM_TEST, -1)
    hessian = np.mean(
        [
            np.kron(np.diag(p) - np.outer(p, p), np.outer(row, row))
            for p, row in zip(probabilities, rows, strict=True)
        ],
        axis=0,
    )
    expected = of_queries @ np.linalg.solve(hessian + 0.01 * np.eye(len(hessian)), gradients.T) / len(rows)
    found = values(first_order(steps.own, steps.train_set()), steps.test_set())
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def test_the_surrogate_is_that_of_the_rows(steps):
    calculator, twin = DualView(steps.own, steps.train_set()), DualView(steps.flat, steps.flat_train_set())
    np.testing.assert_allclose(
        values(calculator, steps.test_set()), values(twin, steps.flat_test_set()), rtol=2e-3, atol=1e-4
    )
    own, others = (np.concatenate(list(one.compute_influence_values())) for one in (calculator, twin))
    np.testing.assert_allclose(own, others, rtol=2e-3, atol=1e-4)


def test_rows_are_the_pairs_that_count_in_the_order_of_examples(case):
    calculator = GradDot(case.own, case.train_set())
    np.testing.assert_array_equal(calculator.train_pairs, np.argwhere(case.is_kept))
    assert calculator.num_train == len(case.rows)


def test_results_gather_the_example_and_say_the_position(case):
    calculator = GradDot(case.own, case.train_set())
    tops = list(calculator.top_k(case.test_set(), k=4))
    pairs = np.concatenate([top.training_indices for top in tops])
    expected = np.argsort(-values(calculator, case.test_set()), axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(pairs, np.argwhere(case.is_kept)[expected])
    np.testing.assert_array_equal(tops[0].training_samples[0], case.inputs[tops[0].training_indices[..., 0]])
    (_, indices), *_ = calculator.top_k_indices(case.test_set(), k=4)
    np.testing.assert_array_equal(indices, tops[0].training_indices)


def test_a_table_of_results_has_the_position_and_its_label(steps):
    (top, *_) = GradDot(steps.own, steps.train_set()).top_k(steps.test_set(), k=2)
    frame = top.to_frame()
    pair = frame["training_index"], frame["training_position"]
    np.testing.assert_array_equal(frame["training_label"], steps.labels[pair])
    assert f"{pair[0][0]}@{pair[1][0]}" in repr(top) and f"{pair[0][0]}@{pair[1][0]}" in top._repr_html_()


def test_another_position_needs_no_other_fit(steps):
    calculator = GradDot(InfluenceModel(steps.model), steps.train_set())
    with pytest.raises(ValueError, match=r"calculator.at\(POSITION\)"):
        list(calculator.top_k(steps.test_set()))
    np.testing.assert_array_equal(
        values(calculator.at(1), steps.test_set()),
        values(GradDot(steps.own, steps.train_set()), steps.test_set()),
    )
    assert not np.array_equal(
        values(calculator.at(1), steps.test_set()), values(calculator.at(2), steps.test_set())
    )


def test_a_target_of_labels_is_the_label_at_the_position(steps):
    calculator = GradDot(steps.own, steps.train_set(), target="label")
    twin = GradDot(steps.flat, steps.flat_train_set(), target="label")
    np.testing.assert_allclose(
        values(calculator, steps.test_set()), values(twin, steps.flat_test_set()), rtol=1e-4, atol=1e-6
    )


def test_a_position_of_padding_is_named(steps):
    calculator = GradDot(InfluenceModel(steps.model, position=3), steps.train_set())
    with pytest.raises(ValueError, match=r"one of padding.*indices=\[1\]"):
        list(calculator.top_k(steps.train_set()))


def test_a_label_outside_names_the_example(steps):
    labels = np.where(np.arange(NUM_TRAIN)[:, np.newaxis] == 7, 9, steps.labels[:NUM_TRAIN])
    train_set = tf.data.Dataset.from_tensor_slices((steps.inputs[:NUM_TRAIN], labels)).batch(5)
    with pytest.raises(ValueError, match=r"classes 0..2.*indices=\[7\]"):
        GradDot(steps.own, train_set)


def test_the_class_that_the_loss_ignores_does_not_count():
    model = MODELS["steps"]()
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(ignore_class=2))
    inputs, labels = np.ones((4, *SEQUENCE), np.float32), np.tile([0, 1, 2, 1, -1], (4, 1))
    train_set = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(4)
    assert GradDot(InfluenceModel(model), train_set).num_train == 4 * 3


def test_numbers_at_positions_may_be_negative():
    model = sequence_model(layers.Dense(1))
    model.compile(loss="mse")
    inputs, labels = np.ones((4, *SEQUENCE), np.float32), -np.arange(20, dtype=np.float32).reshape(4, STEPS)
    train_set = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(3)
    calculator = DualView(InfluenceModel(model, position=0), train_set)
    assert calculator.num_train == 4 * STEPS and values(calculator, train_set).shape == (4, 4 * STEPS)


def test_a_store_on_disk_keeps_rows_and_ids(steps, tmp_path):
    train_set = steps.train_set().map(
        lambda inputs, labels: (inputs, labels, tf.cast(inputs[:, 0, 0] > 0, tf.int32))
    )
    expected = values(DualView(steps.own, train_set), steps.test_set())
    for _ in range(2):
        calculator = DualView(steps.own, train_set, store=DiskStore(tmp_path))
        np.testing.assert_array_equal(values(calculator, steps.test_set()), expected)
    np.testing.assert_array_equal(calculator.train_ids, steps.inputs[calculator.train_pairs[:, 0], 0, 0] > 0)


def test_the_network_runs_once_over_the_training_set(steps):
    seen = []
    train_set = steps.train_set().map(lambda inputs, labels: (inputs, labels))
    model = InfluenceModel(steps.model, position=1)
    model.prepare(tf.constant(steps.inputs[:5]))
    forward = model.forward
    model.forward = lambda inputs: seen.append(len(inputs)) or forward(inputs)
    DualView(model, train_set)
    assert sum(seen) == NUM_TRAIN


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda case: TracIn(case.model, case.train_set(), learning_rates=1.0), "methods of the last layer"),
        (lambda case: GradDot(case.model, case.train_set(), weights="all"), "methods of the last layer"),
        (lambda case: audit(case.model, case.train_set(), case.test_set()), "methods of the last layer"),
        (lambda case: label_issues(case.model, case.train_set()), "methods of the last layer"),
        (lambda case: InfluenceModel(case.model, position=-1), "counts from the first step"),
        (lambda case: InfluenceModel(case.model, position=1.5), "must be a step"),
        (lambda case: InfluenceModel(case.flat.model, position=1), "one output an example"),
        (lambda case: list(GradDot(case.own, case.train_set()).at(9).top_k(case.test_set())), "of shape"),
        (
            lambda case: GradDot(case.own, case.train_set().map(lambda x, y: (x, y[:, 0]))),
            "shape of the labels",
        ),
    ],
    ids=[
        "tracin",
        "all weights",
        "audit",
        "label issues",
        "negative",
        "float",
        "no positions",
        "beyond",
        "labels",
    ],
)
def test_what_positions_do_not_allow_is_refused_with_the_way_out(steps, make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make(steps)


def test_a_layer_that_mixes_positions_is_no_head():
    for layer in (layers.AveragePooling1D(3, 1, padding="same"), layers.UpSampling1D(2)):
        model = keras.Sequential([keras.Input(SEQUENCE), layers.Dense(CLASSES), layer])
        with pytest.raises(ValueError, match="is not the linear head"):
            InfluenceModel(model).prepare(tf.random.normal((3, *SEQUENCE)))
