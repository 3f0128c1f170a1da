"""An audit of data with NaN or infinity in the inputs: it goes on, and says which examples they are."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DualView, InfluenceModel, audit, compare
from deel_dualview.auditing.evidence import id_arrays
from deel_dualview.report import NotFiniteInputs, Severity

TRAIN, TEST = [4, 20, 31], [0, 7]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
    )


def make_sets(dtype: str = "float32", *, broken: bool = True) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    rng = np.random.default_rng(0)
    inputs, queries = rng.normal(size=(60, 8)), rng.normal(size=(30, 8))
    if broken:
        inputs[TRAIN, 1] = np.nan
        queries[TEST, 2] = [np.inf, -np.inf]
    return tuple(
        tf.data.Dataset.from_tensor_slices((tf.cast(part, dtype), np.arange(len(part)) % 3)).batch(9)
        for part in (inputs, queries)
    )


@pytest.mark.parametrize("method", ["dualview", "graddot"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_examples_that_are_not_finite_are_found_and_shown_nowhere_else(model, method, dtype):
    report = audit(model, *make_sets(dtype), method=method, k=3, progress=False)
    broken = report.finding("not-finite")
    # The network is not trained, which is said before anything else.
    assert broken in report.findings[:2]
    assert isinstance(broken, NotFiniteInputs) and broken.severity is Severity.ACT
    assert (broken.train_positions, broken.test_positions) == (tuple(TRAIN), tuple(TEST))
    assert report.rates["not-finite"] == 5 / 90
    issues = {item.example.index for item in report.finding("label-errors").issues}
    influential = {
        item.example.index
        for group in report.finding("influential-examples").classes
        for item in group.examples
    }
    explained = {item.example.index for item in report.finding("wrong-predictions").predictions}
    assert issues and influential and explained
    assert not (issues | influential) & set(TRAIN) and not explained & set(TEST)


def test_the_labels_of_broken_examples_come_last_and_are_not_flagged(model):
    issues = audit(model, *make_sets(), method="sim", k=3, progress=False).label_issues
    assert set(issues.order[-len(TRAIN) :]) == set(TRAIN)
    assert not issues.flagged[TRAIN].any()


def test_the_other_values_are_those_of_the_set_with_zeros(model):
    def zeros(inputs, labels):
        return tf.where(tf.math.is_finite(inputs), inputs, 0), labels

    found = audit(model, *make_sets(), k=3, progress=False)
    expected = audit(model, *(part.map(zeros) for part in make_sets()), k=3, progress=False)
    np.testing.assert_array_equal(found.attributions.toarray(), expected.attributions.toarray())


def test_page_and_json_list_the_positions(model, tmp_path):
    page = audit(model, *make_sets(), k=2, progress=False).to_html(tmp_path / "audit")
    text = page.read_text()
    assert "Positions in the training set: 4, 20, 31." in text
    assert "Positions in the test set: 0, 7." in text
    findings = json.loads((page.parent / "audit.json").read_text())["findings"]
    (positions,) = [item["train_positions"] for item in findings if item["name"] == "not-finite"]
    assert positions == TRAIN


def test_finite_data_have_no_such_finding_and_a_rate_of_zero(model):
    report = audit(model, *make_sets(broken=False), k=2, progress=False)
    assert report.rates["not-finite"] == 0
    assert "not-finite" not in [finding.name for finding in report.findings]


def test_elsewhere_they_are_refused(model):
    train, test = make_sets()
    finite_train, _ = make_sets(broken=False)
    with pytest.raises(ValueError, match=r"indices=\[4\]"):
        DualView(InfluenceModel(model), train)
    view = DualView(InfluenceModel(model), finite_train)
    for use in (view.surrogate_logits, view.surrogate_fidelity, view.sparse_influence_values):
        with pytest.raises(ValueError, match=r"NaN or infinity.*indices=\[0, 7\]"):
            use(test)
    with pytest.raises(ValueError, match=r"NaN or infinity.*indices=\[0, 7\]"):
        compare(model, finite_train, test, methods=["dualview", "graddot"], progress=False)


@pytest.mark.parametrize("name", ["train", "test"])
def test_an_audit_refuses_what_never_ends(model, name):
    sets = dict(zip(("train", "test"), make_sets(broken=False), strict=True))
    sets[name] = sets[name].repeat()
    with pytest.raises(ValueError, match=f"`{name}` never ends"):
        audit(model, **sets, progress=False)
    with pytest.raises(ValueError, match=f"`{name}_set` never ends"):
        compare(model, sets["train"], sets["test"], progress=False)


@pytest.mark.parametrize("name", ["train", "test"])
def test_an_audit_names_the_position_of_a_bad_label_before_the_model_is_used(model, name):
    sets = dict(zip(("train", "test"), make_sets(broken=False), strict=True))
    sets[name] = (
        sets[name]
        .unbatch()
        .enumerate()
        .map(lambda i, e: (e[0], tf.where(tf.equal(i, 25), tf.constant(9, e[1].dtype), e[1])))
        .batch(4)
    )

    def no_calculator(*arguments, **options):
        raise AssertionError("long work")

    with pytest.raises(ValueError, match=rf"dataset='{name}', indices=\[25\], labels=\[9\]"):
        audit(model, **sets, method=no_calculator, progress=False)


def test_ids_are_written_at_one_width_unless_that_multiplies_or_changes_them():
    names = np.array([b"a", b"bcd"], object)
    assert {key: value.tolist() for key, value in id_arrays("ids", names).items()} == {"ids": [b"a", b"bcd"]}
    for awkward in (np.array([b"a", b"a\0"], object), np.array([b"x" * 2**20, *[b"a"] * 300], object)):
        found = id_arrays("ids", awkward)
        stops = np.cumsum(found["ids_lengths"])
        content = found["ids_bytes"].tobytes()
        assert [
            content[stop - n : stop] for stop, n in zip(stops, found["ids_lengths"], strict=True)
        ] == list(awkward)
        assert sum(array.nbytes for array in found.values()) < 2 * 2**20


def test_of_inputs_that_are_all_nan_no_wrong_labels_are_counted(model):
    inputs, labels = np.full((60, 8), np.nan, "float32"), np.arange(60) % 3
    queries = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
    report = audit(
        model, (inputs, labels), (queries, labels), method="graddot", k=3, progress=False, relevance=None
    )
    assert report.findings[0].title == "All training examples have NaN or infinity in the inputs"
    assert report.finding("label-errors").status == "cannot tell" and not report.label_issues.flagged.any()
    assert "outliers" not in {finding.name for finding in report.findings}


@pytest.mark.parametrize("share", [0.4, 0.6])
def test_where_most_inputs_are_nan_no_wrong_labels_are_counted(share, rng):
    truth = np.arange(600) % 3
    labels = np.where((np.arange(600) < 400) & (rng.random(600) < 0.12), (truth + 1) % 3, truth)
    inputs = (5 * np.eye(3, 8)[truth] + rng.normal(size=(600, 8))).astype("float32")
    inputs[: int(share * 400)] = np.nan
    network = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    network.layers[0].set_weights([np.eye(8, 3), np.zeros(3)])
    sets = (inputs[:400], labels[:400]), (inputs[400:], labels[400:])
    report = audit(network, *sets, method="sim", k=2, progress=False, relevance=None)
    is_mostly = report.label_issues.count.reason.startswith("most training examples have NaN")
    assert is_mostly == (share > 0.5)
    assert not (is_mostly and report.label_issues.flagged.any())
