"""An index of FAISS names candidates only: values are those without it, of both signs, beside TensorFlow's threads."""

import functools
import subprocess
import sys
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DualView, FaissIndex, FeatureSimilarity, GradCos, GradDot, TracIn, Trak
from deel_dualview.search import ORDER
from deel_dualview.search.faiss_index import Indexed
from deel_dualview.search.top_k import streaming_top_k

NUM_VECTORS, SIZE = 2000, 16


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, SIZE))
    return (centres[rng.integers(20, size=NUM_VECTORS)] + 0.3 * rng.normal(size=(NUM_VECTORS, SIZE))).astype(
        "float32"
    )


def searched(index, vectors, queries, k, order):
    """The k first by the index, and by all products in float64."""

    def scored(is_wanted):
        rows = np.arange(len(vectors)) if is_wanted is None else np.flatnonzero(is_wanted)
        yield rows, queries @ vectors[rows].T

    search = Indexed(index, lambda: [(tf.constant(part),) for part in np.array_split(vectors, 3)])
    found = search.top_k(scored, (tf.constant(queries),), k, order)
    products = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    keys = -products if order is ORDER.DESCENDING else products
    return found, np.argsort(keys, axis=1, kind="stable")[:, :k], products


@pytest.mark.parametrize("order", ORDER)
@pytest.mark.parametrize("k", [1, 5])
def test_a_flat_index_finds_the_first_of_both_signs(vectors, order, k):
    queries = vectors[:40] + 0.1
    (values, indices), expected, products = searched(FaissIndex("flat"), vectors, queries, k, order)
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(values, np.take_along_axis(products, expected, axis=1), rtol=1e-4, atol=1e-5)


def test_an_inverted_index_finds_nearly_all_and_says_how_many(vectors):
    index = FaissIndex(num_clusters=20, num_probed=8)
    assert index.recall is None
    (values, indices), expected, products = searched(index, vectors, vectors[:64], 5, ORDER.DESCENDING)
    np.testing.assert_allclose(values, np.take_along_axis(products, indices, axis=1), rtol=1e-4, atol=1e-5)
    found = np.mean(
        [np.isin(mine, true).mean() for mine, true in zip(indices[:32], expected[:32], strict=True)]
    )
    assert index.recall == pytest.approx(found)
    assert found > 0.9


def test_an_index_that_misses_much_warns(vectors):
    with pytest.warns(UserWarning, match="recall"):
        searched(FaissIndex(num_clusters=100, num_probed=1), vectors, vectors[:8], 30, ORDER.DESCENDING)


def test_queries_of_a_batch_are_compared_by_products_of_matrices():
    """FAISS 1.15 would compare them one by one, 15 times slower."""
    import faiss

    FaissIndex("flat")
    assert faiss.cvar.distance_compute_blas_threshold <= 20


def test_equal_vectors_are_ordered_by_index():
    vectors = np.ones((60, 4), np.float32)
    (_, indices), *_ = searched(FaissIndex("flat"), vectors, vectors[:2], 60, ORDER.DESCENDING)
    np.testing.assert_array_equal(indices, np.tile(np.arange(60), (2, 1)))


def test_where_too_few_candidates_are_named_all_are_scored(vectors):
    few = vectors[:50]
    (_, indices), expected, _ = searched(
        FaissIndex(num_clusters=25, num_probed=1), few, few[:1], 45, ORDER.DESCENDING
    )
    np.testing.assert_array_equal(indices, expected)


def test_the_same_seed_gives_the_same_clusters(vectors):
    found = [
        searched(
            FaissIndex(num_clusters=30, num_probed=12, seed=3), vectors, vectors[:9], 3, ORDER.ASCENDING
        )[0]
        for _ in range(2)
    ]
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    labels = np.arange(120) % 3
    inputs = (rng.normal(size=(120, 6)) + 2 * np.eye(6)[labels]).astype("float32")
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(inputs, labels, epochs=3, verbose=0)
    return model, tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(50)


METHODS = {
    "DualView": DualView,
    "FeatureSimilarity": FeatureSimilarity,
    "GradDot": GradDot,
    "GradCos, train": functools.partial(GradCos, normalize="train"),
    "TracIn": TracIn,
    "Trak": Trak,
}


@pytest.mark.parametrize("order", ORDER)
@pytest.mark.parametrize("method", METHODS)
def test_top_k_with_an_index_is_top_k_without(trained, method, order):
    model, dataset = trained
    with_index = METHODS[method](model, dataset, index=FaissIndex("flat")).top_k_indices(
        dataset, 4, order=order
    )
    without = METHODS[method](model, dataset).top_k_indices(dataset, 4, order=order)
    for found, expected in zip(with_index, without, strict=True):
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FaissIndex("hnsw"), "kind"),
        (lambda: FaissIndex("flat", num_probed=3), "inverted"),
        (lambda: FaissIndex(num_clusters=0), "num_clusters"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_distances_have_no_index(trained):
    with pytest.raises(ValueError, match="similarity"):
        FeatureSimilarity(*trained, similarity="euclidean", index=FaissIndex("flat"))


def test_vectors_that_are_too_long_are_refused_with_the_way_out():
    long = tf.zeros((2, 20_000))
    search = Indexed(FaissIndex("flat"), lambda: [(long,)])
    with pytest.raises(ValueError, match="projection"):
        search.top_k(lambda _: iter(()), (long,), 1, ORDER.DESCENDING)


SCRIPT = """
import numpy as np, threading
{first}
{second}
import tensorflow as tf
x = np.random.default_rng(0).normal(size=(3000, 32)).astype("float32")
index = faiss.IndexFlatIP(32); index.add(x)
product = tf.function(lambda rows: tf.matmul(rows, rows, transpose_b=True))
found, errors = [], []
def work():
    for _ in range(5):
        values, _ = index.search(x[:200], 1)
        expected = tf.reduce_max(product(tf.constant(x))[:200], axis=1)
        found.append(np.allclose(values[:, 0], expected, rtol=1e-4))
threads = [threading.Thread(target=work) for _ in range(3)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(found) == 15 and all(found)
print("right")
"""


@pytest.mark.parametrize(
    "order", [("import faiss", "import tensorflow"), ("import tensorflow", "import faiss")]
)
def test_threads_of_faiss_and_tensorflow_work_in_one_process(order):
    script = SCRIPT.format(first=order[0], second=order[1])
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and "right" in result.stdout, result.stderr[-2000:]


def test_several_threads_share_an_index(vectors):
    def scored(is_wanted):
        rows = np.arange(len(vectors)) if is_wanted is None else np.flatnonzero(is_wanted)
        yield rows, vectors[:8] @ vectors[rows].T

    search = Indexed(FaissIndex("flat"), lambda: [(tf.constant(vectors),)])
    expected = streaming_top_k(scored(None), 3, ORDER.DESCENDING)[1]
    found = []
    work = lambda: found.append(search.top_k(scored, (tf.constant(vectors[:8]),), 3, ORDER.DESCENDING)[1])  # noqa: E731
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for indices in found:
        np.testing.assert_array_equal(indices, expected)


@pytest.mark.parametrize("method", [DualView, FeatureSimilarity])
@pytest.mark.parametrize("index", ["flat", FaissIndex])
def test_what_is_no_index_is_refused(trained, method, index):
    with pytest.raises(TypeError, match="FaissIndex"):
        method(*trained, index=index)


def test_a_position_is_refused_where_examples_have_one_output(trained):
    with pytest.raises(ValueError, match="one output"):
        FeatureSimilarity(*trained).at(1)
