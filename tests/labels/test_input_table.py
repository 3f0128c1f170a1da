"""Inputs of every kind as rows of a table, the same for both sets."""

import numpy as np
import pytest
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer

from deel_dualview.labels import InputTable


def rows_of(train, test, *, tokens=False, batch_size=7):
    table = InputTable(has_token_ids=tokens)
    for name, inputs in (("train", train), ("test", test)):
        number = len(tf.nest.flatten(inputs)[0])
        for start in range(0, number, batch_size):
            table.add(tf.nest.map_structure(lambda part, at=start: part[at : at + batch_size], inputs), name)
    return table.rows()


def cosines(rows):
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_columns_are_standardised_over_both_sets(rng):
    train, test = rng.normal(3, [1, 100, 0.01], (20, 3)), rng.normal(5, [1, 100, 0.01], (10, 3))
    both = np.concatenate([train, test])
    expected = (both - both.mean(axis=0)) / both.std(axis=0)
    found = rows_of(train, test)
    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4)
    assert len(found[0]) == 20


def test_images_become_principal_components_of_both_sets(rng):
    images = rng.random((30, 11, 11, 1)) * rng.random((30, 1, 1, 1))
    found = np.concatenate(rows_of(images[:20], images[20:]))
    expected = PCA(30).fit_transform(images.reshape(30, -1))
    scale = expected.std(axis=0).max()
    np.testing.assert_allclose(found @ found.T, expected @ expected.T / scale**2, atol=1e-3)


def test_large_images_are_averaged_over_squares(rng):
    small = rng.random((40, 16, 16, 3))
    large = small.repeat(7, axis=1).repeat(7, axis=2)
    expected, found = (np.concatenate(rows_of(images[:30], images[30:])) for images in (small, large))
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-3)


def test_images_of_odd_size_are_taken(rng):
    found = rows_of(rng.random((9, 130, 67, 3)), rng.random((4, 130, 67, 3)))
    assert found[0].shape[0] == 9 and np.isfinite(found[0]).all()


def test_long_signals_keep_their_likenesses(rng):
    bases = rng.normal(size=(3, 5000))
    signals = bases[np.arange(60) % 3] + 0.1 * rng.normal(size=(60, 5000))
    likeness = cosines(np.concatenate(rows_of(signals[:40], signals[40:])))
    same = np.arange(60)[:, None] % 3 == np.arange(60) % 3
    assert likeness[same].min() > 0.9 > 0.2 > likeness[~same].max()


def test_token_ids_become_the_tf_idf_of_their_tokens_without_the_padding():
    ids = np.array([[3, 5, 5, 0], [5, 7, 0, 0], [3, 3, 9, 9]])
    found = np.concatenate(rows_of(ids[:2], ids[2:], tokens=True))
    texts = [" ".join(f"token{token}" for token in row if token) for row in ids]
    expected = TfidfVectorizer().fit_transform(texts)
    np.testing.assert_allclose(found @ found.T, (expected @ expected.T).toarray(), atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_texts_become_the_tf_idf_of_their_words(shape):
    texts = np.array(["A good film.", "a BAD film", "no film"])
    found = np.concatenate(rows_of(texts[:2].reshape(2, *shape[1:]), texts[2:].reshape(1, *shape[1:])))
    expected = TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts)
    np.testing.assert_allclose(found @ found.T, (expected @ expected.T).toarray(), atol=1e-5)


def test_many_words_become_a_hundred_components(rng):
    texts = np.array([" ".join(f"w{word}" for word in rng.integers(0, 500, 30)) for _ in range(150)])
    train, test = rows_of(texts[:100], texts[100:])
    assert train.shape == (100, 100) and test.shape == (50, 100)


def test_whole_numbers_without_an_embedding_are_columns(rng):
    ids = rng.integers(0, 9, (12, 4))
    both = np.concatenate(rows_of(ids[:8], ids[8:]))
    np.testing.assert_allclose(both, (ids - ids.mean(axis=0)) / ids.std(axis=0), atol=1e-4)


def test_several_inputs_stand_side_by_side(rng):
    numbers, colours = rng.normal(size=(9, 2)), np.array(["red", "blue", "red"] * 3)
    found = np.concatenate(
        rows_of({"a": numbers[:6], "b": colours[:6]}, {"a": numbers[6:], "b": colours[6:]})
    )
    assert found.shape == (9, 4)
    np.testing.assert_array_equal(found[:, 2:], found[[0, 1, 0] * 3, 2:])
    assert (found[0, 2:] != found[1, 2:]).all()


def test_numbers_that_are_missing_count_as_the_mean_of_their_column():
    values = np.array([[1.0, 2.0], [np.nan, 4.0], [3.0, np.inf], [np.nan, 3.0]])
    found = np.concatenate(rows_of(values[:3], values[3:]))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[[1, 3], 0], 0, atol=1e-6)


def test_a_column_without_any_number_is_no_obstacle():
    values = np.array([[1.0, np.nan], [2.0, np.nan], [4.0, np.nan]])
    np.testing.assert_array_equal(np.concatenate(rows_of(values[:2], values[2:]))[:, 1], 0)


@pytest.mark.parametrize("kind", ["columns", "images", "texts", "signals"])
def test_batch_size_changes_no_row(rng, kind):
    inputs = {
        "columns": rng.normal(size=(20, 3)),
        "images": rng.random((20, 40, 40, 1)),
        "texts": np.array([f"word{number} both" for number in range(20)]),
        "signals": rng.normal(size=(20, 2000)),
    }[kind]
    first = np.concatenate(rows_of(inputs[:12], inputs[12:], batch_size=5))
    second = np.concatenate(rows_of(inputs[:12], inputs[12:], batch_size=20))
    np.testing.assert_allclose(first @ first.T, second @ second.T, rtol=1e-4, atol=1e-4)


def test_columns_beside_token_ids_stay_columns():
    """Ages are whole numbers too, and floats; the model's Embedding takes the other input."""
    ages, ids = np.array([[20.0, 31.0], [40.0, 52.0], [63.0, 31.0]]), np.array([[1, 2], [1, 0], [3, 3]])
    inputs = {"ages": ages, "ids": ids}
    found = np.concatenate(
        rows_of(*({name: part[rows] for name, part in inputs.items()} for rows in ([0, 1], [2])), tokens=True)
    )
    np.testing.assert_allclose(found[:, :2], (ages - ages.mean(axis=0)) / ages.std(axis=0), atol=1e-4)
    assert found.shape == (3, 5)


def test_token_ids_may_be_floats():
    ids = np.array([[3.0, 5.0, 0.0], [5.0, 7.0, 7.0]])
    first, second = (
        np.concatenate(rows_of(part[:1], part[1:], tokens=True)) for part in (ids, ids.astype(np.int64))
    )
    np.testing.assert_allclose(first, second)


def test_one_number_that_is_missing_leaves_a_long_signal_finite(rng):
    signals = rng.normal(size=(10, 3000))
    signals[3, 5] = np.nan
    assert np.isfinite(np.concatenate(rows_of(signals[:6], signals[6:]))).all()
