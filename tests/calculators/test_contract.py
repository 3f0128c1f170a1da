"""What every calculator promises of its values, whatever its method."""

import numpy as np
import pytest
import tensorflow as tf
from cases_contract import TOLERANCE, all_values

from deel_dualview import ORDER, DiskStore


@pytest.fixture(scope="session")
def self_influence(calculator):
    """Of all training examples, by the shared calculator."""
    return np.concatenate(list(calculator.compute_influence_values()))


def sorted_by_hand(values, k, order):
    keys = values if order is ORDER.ASCENDING else -values
    return np.argsort(keys, axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize(("train_size", "query_size"), [(1, 15), (64, 1)])
def test_batch_sizes_change_no_value(
    train_size, query_size, make_calculator, values, self_influence, problem
):
    other = make_calculator(problem.train(train_size))
    np.testing.assert_allclose(all_values(other, problem.test(query_size)), values, **TOLERANCE)
    np.testing.assert_allclose(
        np.concatenate(list(other.compute_influence_values())), self_influence, **TOLERANCE
    )


@pytest.fixture(scope="session")
def with_empty_batches(problem):
    """Training and test set with batches of no example first, last and in between."""

    def add(dataset):
        elements = list(dataset)
        empty = tf.nest.map_structure(lambda tensor: tensor[:0], elements[0])
        parts = [empty, elements[0], empty, empty, *elements[1:], empty]
        return tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=dataset.element_spec)

    return add(problem.train()), add(problem.test())


def test_empty_batches_change_no_value(make_calculator, values, self_influence, with_empty_batches):
    train, queries = with_empty_batches
    other = make_calculator(train)
    np.testing.assert_allclose(all_values(other, queries), values, **TOLERANCE)
    np.testing.assert_allclose(
        np.concatenate(list(other.compute_influence_values())), self_influence, **TOLERANCE
    )
    (first, *_) = other.top_k(queries, k=3)
    assert first.training_samples[0].shape == (5, 3, 6)


def test_permuting_the_training_set_permutes_the_result(make_calculator, values, problem):
    permutation = np.random.default_rng(1).permutation(60)
    shuffled = problem._replace(
        train_inputs=problem.train_inputs[permutation], train_labels=problem.train_labels[permutation]
    )
    np.testing.assert_allclose(
        all_values(make_calculator(shuffled.train()), problem.test()), values[:, permutation], **TOLERANCE
    )


@pytest.mark.parametrize("order", ORDER)
@pytest.mark.parametrize("k", [1, 60])
def test_top_k_agrees_with_sorting_the_full_matrix(k, order, calculator, values, problem):
    expected = sorted_by_hand(values, k, order)
    found = list(calculator.top_k_indices(problem.test(), k=k, order=order))
    found_values = np.concatenate([best for best, _ in found])
    found_indices = np.concatenate([indices for _, indices in found])
    np.testing.assert_allclose(found_values, np.take_along_axis(values, expected, 1), **TOLERANCE)
    np.testing.assert_array_equal(found_indices, expected)


def test_sparse_values_are_all_values(calculator, values, problem):
    sparse = calculator.sparse_influence_values(problem.test())
    assert sparse.format == "csr"
    np.testing.assert_allclose(sparse.toarray(), values, atol=1e-5 * np.abs(values).max())


def test_self_influence_is_the_diagonal(by_label, problem):
    diagonal = np.diag(all_values(by_label, problem.train()))
    np.testing.assert_allclose(
        np.concatenate(list(by_label.compute_influence_values())), diagonal, **TOLERANCE
    )


def test_unlabelled_queries_work_for_the_prediction(calculator, values, problem):
    unlabelled = problem.test().map(lambda x, y: x)
    np.testing.assert_array_equal(all_values(calculator, unlabelled), values)


def test_a_target_class_explains_that_class(make_calculator, by_label, problem):
    by_class = make_calculator(problem.train(), target=2)
    rows = problem.test_labels == 2
    assert rows.any()
    np.testing.assert_allclose(
        all_values(by_class, problem.test())[rows], all_values(by_label, problem.test())[rows], **TOLERANCE
    )


def test_values_are_deterministic(make_calculator, values, problem):
    again = make_calculator(problem.train())
    np.testing.assert_array_equal(all_values(again, problem.test()), values)


def test_a_store_on_disk_gives_the_same_values_at_a_second_start(make_calculator, values, problem, tmp_path):
    first = make_calculator(problem.train(), store=DiskStore(tmp_path / "store"))
    second = make_calculator(problem.train(32), store=DiskStore(tmp_path / "store"))
    np.testing.assert_array_equal(all_values(first, problem.test()), values)
    np.testing.assert_allclose(all_values(second, problem.test()), values, **TOLERANCE)
