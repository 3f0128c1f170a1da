"""Methods compared: agreement against SciPy and plain loops, files, and what is refused."""

import functools
import json

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from pages import Page

from deel_dualview import DualView, FeatureSimilarity, GradDot, InfluenceModel, compare
from deel_dualview.auditing import compared_method
from deel_dualview.auditing.agreement import Agreement, mean_over_queries
from deel_dualview.report.comparison import COMPARISON_FILES, Comparison

NAMES = ("graddot", "feature-similarity", "dualview")
SCRIPT = "<script>alert('x')</script>"


def to_dataset(num: int, seed: int, *, batch_size: int = 16) -> tf.data.Dataset:
    rng = np.random.default_rng(seed)
    labels = np.arange(num) % 3
    images = rng.random((num, 6, 6, 1)).astype(np.float32)
    images[np.arange(num), 2 * labels] += 1
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)


@pytest.fixture(scope="module")
def model() -> InfluenceModel:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Flatten(), layers.Dense(8, "relu"), layers.Dense(3)], name="six"
    )
    network.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    network.fit(to_dataset(60, 0), epochs=3, verbose=0, shuffle=False)
    return InfluenceModel(network)


@pytest.fixture(scope="module")
def train() -> tf.data.Dataset:
    return to_dataset(60, 0)


@pytest.fixture(scope="module")
def test() -> tf.data.Dataset:
    return to_dataset(30, 1)


@pytest.fixture(scope="module")
def comparison(model, train, test) -> Comparison:
    return compare(
        model, train, test, methods=NAMES, k=4, num_queries=20, class_names=["a", SCRIPT, "c"], progress=False
    )


@pytest.fixture(scope="module")
def values(model, train, test) -> list[np.ndarray]:
    """All influence values on the 20 queries, by each method's own calculator."""
    queries = test.unbatch().take(20).batch(20)
    calculators = [GradDot(model, train), FeatureSimilarity(model, train), DualView(model, train)]
    return [next(iter(own.estimate_influence_values_in_batches(queries))).numpy() for own in calculators]


def test_rank_correlation_is_spearmans_mean_over_the_queries(comparison, values):
    for row, first in enumerate(values):
        for column, second in enumerate(values):
            pairs = zip(first, second, strict=True)
            expected = np.mean([scipy.stats.spearmanr(*pair).statistic for pair in pairs])
            assert comparison.rank_correlation[row][column] == pytest.approx(expected, abs=1e-3)


def test_overlap_is_the_share_of_common_proponents(comparison, values):
    first, second = ([set(np.argsort(-row, kind="stable")[:4]) for row in method] for method in values[:2])
    expected = np.mean([len(one & other) / 4 for one, other in zip(first, second, strict=True)])
    assert comparison.top_k_overlap[0][1] == comparison.top_k_overlap[1][0] == pytest.approx(expected)


def test_every_method_agrees_with_itself(comparison):
    np.testing.assert_allclose(np.diag(comparison.rank_correlation), 1)
    np.testing.assert_allclose(np.diag(comparison.top_k_overlap), 1)


def test_batches_of_queries_do_not_change_the_agreement(comparison, model, train, test, monkeypatch):
    monkeypatch.setattr(compared_method, "MAX_VALUES", 3 * 60)
    again = compare(model, train, test, methods=NAMES, k=4, num_queries=20, progress=False)
    np.testing.assert_allclose(again.rank_correlation, comparison.rank_correlation, atol=1e-3)
    np.testing.assert_allclose(again.top_k_overlap, comparison.top_k_overlap, atol=0.02)


def test_as_many_values_are_in_memory_as_allowed(model, test, monkeypatch):
    monkeypatch.setattr(compared_method, "MAX_VALUES", 7 * 60)
    queries = compared_method.Queries.read(model, test, 20, num_train=60)
    assert [len(batch) for batch, _ in queries.dataset] == [7, 7, 6]


def test_the_first_test_examples_are_explained_and_no_more_than_there_are(comparison, model, train, test):
    assert comparison.num_queries == 20
    assert compare(model, train, test, methods=NAMES[:2], progress=False).num_queries == 30


def test_those_least_agreed_on_come_first_with_the_strongest_proponents(comparison, values):
    found = [item.rank_correlation for item in comparison.predictions]
    assert found == sorted(found)
    item = comparison.predictions[0]
    row = values[0][item.example.index]
    assert [influence.example.index for influence in item.proponents[0]] == list(np.argsort(-row)[:4])


def test_seconds_are_measured(comparison):
    for method in comparison.methods:
        assert 0 < method.seconds_per_query < method.setup_seconds < comparison.seconds


def test_the_bytes_kept_of_the_training_set_are_told(comparison, model, train):
    kept = {method.name: method.stored_bytes for method in comparison.methods}
    assert kept["graddot"] == GradDot(model, train).stored_bytes > 8 * comparison.num_train
    assert "kept" in str(comparison)


def test_calculators_and_makers_of_your_own_are_compared(model, train, test):
    own = {"soft": functools.partial(DualView, K=0.1), "given": GradDot(model, train), "named": "graddot"}
    found = compare(model, train, test, methods=own, num_queries=5, progress=False)
    assert found.names == ("soft", "given", "named")
    assert found.rank_correlation[1][2] == pytest.approx(1)


def test_ties_have_their_mean_rank(rng):
    first, second = rng.integers(0, 3, (2, 5, 40)).astype(np.float32)
    agreement = Agreement(2)
    agreement.update([first, second])
    expected = [scipy.stats.spearmanr(*rows).statistic for rows in zip(first, second, strict=True)]
    np.testing.assert_allclose(agreement.rank_correlations()[:, 0, 1], expected, atol=1e-12)


def test_a_method_that_says_the_same_of_all_has_no_rank_correlation(rng):
    agreement = Agreement(2)
    agreement.update([np.ones((3, 10), np.float32), rng.normal(size=(3, 10)).astype(np.float32)])
    assert np.isnan(agreement.rank_correlations()[:, 0, 1]).all()
    assert np.isnan(mean_over_queries(agreement.rank_correlations())[0, 1])


def test_queries_without_a_number_do_not_count():
    matrices = np.array([[[1.0]], [[np.nan]], [[0.5]]])
    assert mean_over_queries(matrices)[0, 0] == 0.75


def test_an_unlabelled_test_set_is_compared(model, train, test):
    found = compare(
        model, train, test.map(lambda image, _: image), methods=NAMES[:2], num_queries=5, progress=False
    )
    assert {item.example.label for item in found.predictions} == {None}


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"methods": ["graddot"]}, "at least two"),
        ({"methods": "graddot"}, "at least two"),
        ({"methods": ["graddot", "graddot"]}, "different names"),
        ({"methods": ["graddot", "magic"]}, "dualview.*magic"),
        ({"methods": ["graddot", "tracin"]}, "tracin needs checkpoints"),
        ({"k": 61}, "lower `k`"),
        ({"num_queries": 0}, "at least 1"),
        ({"class_names": ["a"]}, "3 classes"),
    ],
)
def test_bad_arguments_are_refused(settings, words, model, train, test):
    with pytest.raises(ValueError, match=words):
        compare(model, train, test, progress=False, **{"methods": NAMES} | settings)


@pytest.mark.parametrize("methods", [None, ["graddot", 3], 5])
def test_what_are_no_names_of_methods_is_refused(methods, model, train, test):
    with pytest.raises(TypeError, match="A method is a name|`methods` must be"):
        compare(model, train, test, methods=methods, progress=False)


def test_a_calculator_of_another_target_is_refused(model, train, test):
    own = {"label": GradDot(model, train, target="label"), "named": "graddot"}
    with pytest.raises(ValueError, match="target='prediction'"):
        compare(model, train, test, methods=own, progress=False)


def test_test_examples_of_another_shape_are_refused(model, train):
    other = tf.data.Dataset.from_tensor_slices(np.zeros((4, 5, 5, 1), np.float32)).batch(2)
    with pytest.raises(ValueError, match="test_set"):
        compare(model, train, other, methods=NAMES, progress=False)


def test_an_empty_test_set_is_refused(model, train, test):
    with pytest.raises(ValueError, match="must hold an example"):
        nothing = test.unbatch().filter(lambda *_: False).batch(4)
        compare(model, train, nothing, methods=NAMES, progress=False)


def test_what_makes_no_calculator_is_refused(model, train, test):
    with pytest.raises(TypeError, match="A method is a name"):
        compare(model, train, test, methods={"one": "graddot", "list": lambda *_, store: []}, progress=False)


def test_it_is_written_as_a_page_and_as_json(comparison, tmp_path):
    path = comparison.to_html(tmp_path / "compare")
    assert sorted(file.name for file in path.parent.iterdir()) == sorted(COMPARISON_FILES)
    payload = json.loads((path.parent / "compare.json").read_text())
    assert [method["name"] for method in payload["methods"]] == list(NAMES)
    np.testing.assert_allclose(payload["rank_correlation"], comparison.rank_correlation)
    assert json.loads(comparison.to_json(tmp_path / "again.json").read_text()) == payload


def test_the_page_is_well_formed_loads_nothing_and_escapes(comparison, tmp_path):
    text = comparison.to_html(tmp_path / "compare").read_text(encoding="utf-8")
    page = Page(text)
    assert page.mismatches == [] and page.open == []
    assert "script" not in page.tags
    addresses = [value for tag, name, value in page.attributes if tag != "a" and name in ("src", "href")]
    assert [address for address in addresses if not address.startswith(("data:", "#"))] == []
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_a_title_names_the_page_and_is_escaped(comparison, tmp_path):
    text = comparison.to_html(tmp_path / "compare", title="Shoes <b>").read_text(encoding="utf-8")
    assert "<title>Shoes &lt;b&gt;</title>" in text and "<h1>Shoes &lt;b&gt;</h1>" in text


def test_only_an_earlier_comparison_is_overwritten(comparison, tmp_path):
    comparison.to_html(tmp_path / "compare")
    with pytest.raises(FileExistsError, match="overwrite"):
        comparison.to_html(tmp_path / "compare")
    comparison.to_html(tmp_path / "compare", overwrite=True)
    (tmp_path / "compare" / "thesis.tex").write_text("")
    with pytest.raises(FileExistsError, match=r"thesis\.tex"):
        comparison.to_html(tmp_path / "compare", overwrite=True)


def test_the_text_has_a_row_for_every_method(comparison):
    lines = str(comparison).splitlines()
    for name in NAMES:
        assert len([line for line in lines if line.startswith(name)]) == 3


def test_queries_whose_values_are_all_zero_have_no_overlap(rng):
    """Of the second query the first method says nothing: its first positions are no proponents."""
    first, second = rng.normal(size=(2, 2, 9)).astype(np.float32)
    first[1] = 0
    agreement = Agreement(3)
    agreement.update([first, second])
    overlaps = agreement.overlaps()
    assert np.isnan(overlaps[1][[0, 0, 1], [0, 1, 0]]).all()
    assert overlaps[1, 1, 1] == 1 and np.isfinite(overlaps[0]).all()
    np.testing.assert_allclose(mean_over_queries(overlaps), [[1, overlaps[0, 0, 1]], [overlaps[0, 0, 1], 1]])


def test_a_comparison_with_a_method_that_ranks_nothing_is_written_down(model, train, test, tmp_path):
    network = keras.models.clone_model(model.model)
    network.set_weights(model.model.get_weights())
    network.layers[-1].set_weights([1e5 * weight for weight in network.layers[-1].get_weights()])
    agreeing = train.unbatch().map(lambda x, y: (x, tf.argmax(network(x[tf.newaxis]), 1)[0])).batch(16)
    found = compare(network, agreeing, test, methods=("graddot", "gradcos", "sim"), k=3, progress=False)
    assert np.isnan(found.top_k_overlap[0]).all() and np.isfinite(found.top_k_overlap[1][2])
    assert "nan%" not in found.to_html(tmp_path / "compare").read_text()
    assert "nan" not in str(found) and "–" in str(found)
