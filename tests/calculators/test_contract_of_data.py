"""What every calculator promises of the data and the arguments that it takes: a class reads, gathers and refuses."""

import numpy as np
import pytest
import tensorflow as tf
from cases_contract import ONE_OF_EACH, TOLERANCE, all_values

from deel_dualview import ORDER, DiskStore, InfluenceModel

pytestmark = pytest.mark.parametrize(
    "make_calculator", ONE_OF_EACH.values(), ids=ONE_OF_EACH, indirect=True, scope="session"
)


def unknown_cardinality(dataset):
    return dataset.filter(lambda *element: True)


def from_generator(dataset):
    return tf.data.Dataset.from_generator(lambda: iter(dataset), output_signature=dataset.element_spec)


# Several wraps at a time: each of them takes a calculator of every kind.
WRAPPERS = {
    "one-hot, cached, taken and prefetched": lambda dataset: (
        dataset.map(lambda x, y: (x, tf.one_hot(y, 3))).cache().take(100).prefetch(2)
    ),
    "generated, with a column of labels": lambda dataset: from_generator(
        dataset.map(lambda x, y: (x, y[:, tf.newaxis]))
    ),
    "filtered, of float64": lambda dataset: unknown_cardinality(
        dataset.map(lambda x, y: (tf.cast(x, tf.float64), y))
    ),
}


@pytest.fixture(scope="session")
def wrapped(problem):
    """Training and test set in every wrap, traced once for all calculators."""
    return {name: (wrap(problem.train()), wrap(problem.test())) for name, wrap in WRAPPERS.items()}


@pytest.mark.parametrize("name", WRAPPERS)
def test_how_a_dataset_is_wrapped_changes_no_value(name, make_calculator, values, wrapped):
    train, test = wrapped[name]
    calculator = make_calculator(train)
    np.testing.assert_allclose(all_values(calculator, test), values, **TOLERANCE)
    (top,) = calculator.top_k(test.take(1), k=3)
    assert top.training_indices.shape == (5, 3)


@pytest.mark.parametrize("wrong", [np.nan])
def test_inputs_that_are_not_numbers_are_refused_by_position(wrong, make_calculator, calculator, problem):
    inputs, queries = problem.train_inputs.copy(), problem.test_inputs.copy()
    inputs[[37, 38], 2] = queries[12, 1] = wrong
    with pytest.raises(ValueError, match=r"NaN or infinity in the inputs.*indices=\[37, 38\]"):
        make_calculator(problem._replace(train_inputs=inputs).train(10))
    broken = problem._replace(test_inputs=queries).test()
    for results in (
        calculator.estimate_influence_values_in_batches(broken),
        calculator.top_k(broken, k=2),
        calculator.top_k_indices(broken, k=2),
    ):
        with pytest.raises(ValueError, match=r"`dataset_to_evaluate` has NaN or infinity.*indices=\[12\]"):
            list(results)


def test_a_label_that_is_no_class_is_refused_by_position(make_calculator, problem):
    labels = problem.train_labels.copy()
    labels[37] = 3
    with pytest.raises(ValueError, match=r"Labels must be classes.*indices=\[37\]"):
        make_calculator(problem._replace(train_labels=labels).train(10))


def test_what_never_ends_is_refused_where_all_of_it_is_needed(make_calculator, calculator, problem):
    with pytest.raises(ValueError, match="`train_set` never ends.*take"):
        make_calculator(problem.train().repeat())
    with pytest.raises(ValueError, match="`dataset_to_evaluate` never ends"):
        calculator.sparse_influence_values(problem.test().repeat())
    (top,) = calculator.top_k(problem.test().repeat(), k=2).take(1)
    assert top.training_indices.shape == (5, 2)


def test_top_k_gathers_the_examples_it_names(calculator, problem):
    samples = []
    for top in calculator.top_k(problem.test(), k=4):
        indices = top.training_indices.numpy()
        np.testing.assert_array_equal(top.training_samples[0], problem.train_inputs[indices])
        np.testing.assert_array_equal(top.training_samples[1], problem.train_labels[indices])
        samples.append(top.samples[0])
    np.testing.assert_array_equal(np.concatenate(samples), problem.test_inputs)


def test_ids_travel_with_the_results(make_calculator, problem):
    names = np.array([f"train/{index}" for index in range(60)])
    train = tf.data.Dataset.from_tensor_slices((problem.train_inputs, problem.train_labels, names)).batch(8)
    for top in make_calculator(train).top_k(problem.test(), k=2):
        np.testing.assert_array_equal(
            top.training_samples[2].numpy().astype(str), names[top.training_indices.numpy()]
        )


def test_top_k_reads_with_the_training_set_given_or_not(calculator, problem):
    (given,) = calculator.top_k(problem.test().take(1), problem.train(9), k=3)
    (default,) = calculator.top_k(problem.test().take(1), k=3)
    np.testing.assert_array_equal(given.training_indices, default.training_indices)
    np.testing.assert_array_equal(given.training_samples[0], default.training_samples[0])


def test_another_training_set_is_refused(calculator, problem):
    other = problem._replace(train_inputs=problem.train_inputs[::-1].copy())
    with pytest.raises(ValueError, match="built with"):
        calculator.top_k(problem.test(), other.train(), k=3)


def test_a_training_set_that_changes_later_is_refused(make_calculator, problem):
    inputs = tf.Variable(problem.train_inputs)
    train = (
        tf.data.Dataset.range(60)
        .batch(10)
        .map(lambda i: (tf.gather(inputs, i), tf.gather(problem.train_labels, i)))
    )
    calculator = make_calculator(train)
    inputs.assign(problem.train_inputs[::-1].copy())
    with pytest.raises(ValueError, match="changes between two passes"):
        list(calculator.top_k(problem.test(), k=60))


def test_a_training_set_that_reshuffles_after_its_first_batch_is_refused(make_calculator, problem):
    rest = problem.train(20).skip(1).unbatch().shuffle(40).batch(20)
    with pytest.raises(ValueError, match="changes between two passes"):
        list(make_calculator(problem.train(20).take(1).concatenate(rest)).top_k_indices(problem.test(), k=3))


def test_two_lazy_results_can_be_read_at_once(calculator, problem):
    first = iter(calculator.top_k(problem.test(), k=2))
    second = iter(calculator.top_k(problem.test(), k=2))
    np.testing.assert_array_equal(next(first).influence_values, next(second).influence_values)
    results = calculator.top_k(problem.test(), k=2)
    assert len(list(results)) == len(list(results)) == 3


def test_nothing_is_read_before_a_result_is_asked_for(calculator, problem):
    reads = []

    def queries():
        reads.append(1)
        yield from problem.test()

    dataset = tf.data.Dataset.from_generator(queries, output_signature=problem.test().element_spec)
    result = calculator.top_k(dataset, k=2)
    assert not reads
    next(iter(result))
    assert reads


def test_results_can_be_mapped_and_prefetched(calculator, problem):
    mapped = calculator.top_k(problem.test(), k=2).map(lambda top: top.influence_values).prefetch(1)
    direct = [top.influence_values for top in calculator.top_k(problem.test(), k=2)]
    np.testing.assert_array_equal(np.concatenate(list(mapped)), np.concatenate(direct))


@pytest.mark.parametrize("k", [0, 61])
def test_k_out_of_range_is_refused(k, calculator, problem):
    with pytest.raises(ValueError, match="k"):
        calculator.top_k(problem.test(), k=k)


def test_unlabelled_queries_are_refused_for_the_label(by_label, problem):
    with pytest.raises(ValueError, match="target='prediction'"):
        by_label.top_k(problem.test().map(lambda x, y: x), k=1)


@pytest.mark.parametrize("target", ["predictions", 3, True])
def test_an_unknown_target_is_refused(target, make_calculator, problem):
    with pytest.raises(ValueError, match="target"):
        make_calculator(problem.train(), target=target)


def test_reshuffling_is_refused(make_calculator, problem):
    shuffled = (
        tf.data.Dataset.from_tensor_slices((problem.train_inputs, problem.train_labels)).shuffle(60).batch(16)
    )
    with pytest.raises(ValueError, match="reshuffle_each_iteration=False"):
        make_calculator(shuffled)


def test_augmentation_is_refused(make_calculator, problem):
    noise = tf.random.Generator.from_seed(0)
    noisy = problem.train().map(lambda x, y: (x + noise.normal(tf.shape(x)), y))
    with pytest.raises(ValueError, match="random augmentation"):
        make_calculator(noisy)


BAD_TRAINING_SETS = {
    "unbatched": (lambda train: train.unbatch(), r"\.batch"),
    "empty": (lambda train: train.take(0), "empty"),
    "empty, of unknown size": (lambda train: train.filter(lambda x, y: False), "empty"),
    "unlabelled": (lambda train: train.map(lambda x, y: x), "labels"),
    "float labels": (
        lambda train: train.map(lambda x, y: (x, tf.cast(y, tf.float32) + 0.5)),
        "integers|whole",
    ),
    "labels out of range": (lambda train: train.map(lambda x, y: (x, y + 1)), "0..2"),
    "one-hot of another width": (lambda train: train.map(lambda x, y: (x, tf.one_hot(y, 5))), "as wide as"),
    "negative sample weights": (
        lambda train: train.map(lambda x, y: (x, y, tf.cast(y, tf.float32) - 1.0)),
        "not negative",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_TRAINING_SETS.values(), ids=BAD_TRAINING_SETS)
def test_a_bad_training_set_gets_a_clear_error(spoil, message, make_calculator, problem):
    with pytest.raises(ValueError, match=message):
        make_calculator(spoil(problem.train()))


def test_examples_with_features_that_are_not_finite_are_named(make_calculator, problem):
    inputs = problem.train_inputs.copy()
    # Not NaN: on some processors TensorFlow's fused ReLU turns it into 0.
    inputs[[3, 41], 0] = np.inf
    with pytest.raises(ValueError, match=r"\[3, 41\]"):
        make_calculator(problem._replace(train_inputs=inputs).train(64))


def test_arrays_are_refused(make_calculator, problem):
    with pytest.raises(TypeError, match="from_tensor_slices"):
        make_calculator((problem.train_inputs, problem.train_labels))


def test_a_keras_model_is_taken_as_it_is(calculator, problem):
    calculator_class = type(calculator)
    bare = calculator_class(problem.model, problem.train())
    wrapped = calculator_class(InfluenceModel(problem.model), problem.train())
    np.testing.assert_allclose(
        all_values(bare, problem.test()), all_values(wrapped, problem.test()), **TOLERANCE
    )


def test_what_is_no_model_is_refused(calculator, problem):
    with pytest.raises(TypeError, match="Keras"):
        type(calculator)("model.keras", problem.train())


def test_a_store_of_another_model_is_refused(make_calculator, calculator, problem, tmp_path):
    import keras

    make_calculator(problem.train(), store=DiskStore(tmp_path / "store"))
    other = keras.models.clone_model(problem.model)
    with pytest.raises(ValueError, match="model"):
        type(calculator)(InfluenceModel(other), problem.train(), store=DiskStore(tmp_path / "store"))


@pytest.mark.parametrize("order", ["Ascending"])
def test_an_order_can_be_given_by_its_name(order, calculator, problem):
    ((values, indices),) = calculator.top_k_indices(problem.test(15), k=4, order=order)
    ((expected, positions),) = calculator.top_k_indices(problem.test(15), k=4, order=ORDER[order.upper()])
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(indices, positions)
    (top,) = calculator.top_k(problem.test(15), k=4, order=order)
    np.testing.assert_array_equal(top.training_indices, positions)


@pytest.mark.parametrize("order", ["DESC", None])
def test_an_order_that_is_none_is_refused(order, calculator, problem):
    for search in (calculator.top_k, calculator.top_k_indices):
        with pytest.raises(TypeError, match="ORDER.DESCENDING"):
            search(problem.test(), k=1, order=order)


def test_a_store_that_is_none_is_refused(make_calculator, problem):
    with pytest.raises(TypeError, match="DiskStore"):
        make_calculator(problem.train(), store="directory")


def test_queries_that_are_not_finite_are_named(calculator, problem):
    inputs = problem.test_inputs.copy()
    inputs[[2, 7], 0] = np.inf
    queries = problem._replace(test_inputs=inputs).test(15)
    with pytest.raises(ValueError, match=r"\[2, 7\]"):
        list(calculator.top_k(queries, k=1))
    with pytest.raises(ValueError, match=r"\[2, 7\]"):
        all_values(calculator, queries)


def test_inputs_of_another_shape_are_refused_before_anything_runs(make_calculator, calculator, problem):
    narrow = problem._replace(
        test_inputs=problem.test_inputs[:, :5], train_inputs=problem.train_inputs[:, :5]
    )
    with pytest.raises(ValueError, match=r"\(6,\)"):
        calculator.top_k(narrow.test(), k=1)
    with pytest.raises(ValueError, match=r"\(6,\)"):
        make_calculator(narrow.train())
