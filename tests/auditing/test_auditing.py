"""The audit of real small models: what was planted in the data is found, what cannot be audited refused."""

import csv
import dataclasses
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DualView, InfluenceModel, audit, load_digits, swap_labels
from deel_dualview.auditing import duplicates, labels, surrogate
from deel_dualview.auditing.reading import gather_inputs, hash_inputs, read_contents
from deel_dualview.report import AuditReport, Severity
from deel_dualview.report.html import render_page

NUM_SWAPPED = 35
LEAKED, NEARLY_LEAKED, DOUBLED = 5, 6, 40


def train_model(inputs: np.ndarray, targets: np.ndarray, *, epochs: int = 15) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input(inputs.shape[1:]),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ],
        name="small_digits",
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, targets, batch_size=32, epochs=epochs, verbose=0)
    return model


def to_dataset(*parts: np.ndarray, batch_size: int = 64) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(parts if len(parts) > 1 else parts[0]).batch(batch_size)


@dataclasses.dataclass
class Planted:
    """Digits with swapped labels, a leaked test image, one leaked almost, and a double of another label."""

    model: keras.Model
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    swapped: np.ndarray
    double: int

    @property
    def wrong(self) -> set[int]:
        return {*self.swapped.tolist(), self.double}

    def datasets(self) -> tuple[tf.data.Dataset, tf.data.Dataset]:
        return to_dataset(*self.train), to_dataset(*self.test)


@pytest.fixture(scope="module")
def planted() -> Planted:
    (images, targets), (test_images, test_targets) = load_digits()
    images, targets = images[:700], targets[:700]
    test_images, test_targets = test_images[:150].copy(), test_targets[:150].copy()
    test_images[LEAKED], test_targets[LEAKED] = images[30], targets[30]
    test_images[NEARLY_LEAKED], test_targets[NEARLY_LEAKED] = images[31] * 0.97, targets[31]
    swapped = swap_labels(targets, NUM_SWAPPED, num_classes=10, seed=1)
    images = np.concatenate([images, images[DOUBLED : DOUBLED + 1]])
    given = np.append(swapped.labels, (swapped.labels[DOUBLED] + 1) % 10)
    model = train_model(images, given)
    return Planted(model, (images, given), (test_images, test_targets), swapped.indices, len(images) - 1)


@pytest.fixture(scope="module")
def report(planted: Planted) -> AuditReport:
    train, test = planted.datasets()
    known = planted.swapped
    return audit(planted.model, train, test, k=3, known_label_errors=known, progress=False)


def test_swapped_labels_stand_at_the_head_of_the_label_issues(report, planted):
    finding = report.finding("label-errors")
    first = {issue.example.index for issue in finding.issues[:NUM_SWAPPED]}
    assert len(first & planted.wrong) >= 0.9 * NUM_SWAPPED
    assert finding.severity is Severity.ACT


def test_the_interval_of_a_count_holds_the_true_number_of_wrong_labels(report, planted):
    finding = report.finding("label-errors")
    assert finding.status == "counted"
    assert finding.low <= len(planted.wrong) <= finding.high < 701 / 2
    assert finding.low <= finding.count <= finding.high
    assert report.rates["label-errors"] == finding.share == finding.count / 701


def test_a_swapped_label_is_suggested_to_be_the_one_that_it_was(report, planted):
    truth = load_digits()[0][1][planted.swapped]
    suggested = report.arrays["train_suggested_labels"]
    assert (suggested != report.arrays["train_labels"]).all()
    assert (suggested[planted.swapped] == truth).mean() >= 0.8


def test_as_many_labels_are_flagged_as_are_counted_those_of_highest_score(report):
    finding, issues = report.finding("label-errors"), report.label_issues
    first = np.argsort(-issues.scores, kind="stable")[: finding.count]
    np.testing.assert_array_equal(np.flatnonzero(issues.flagged), np.sort(first))
    shown = [issue.example.index for issue in finding.issues]
    assert shown[: len(first)] == first[: len(shown)].tolist()
    assert [issue.flagged for issue in finding.issues] == issues.flagged[shown].tolist()


def test_pairs_of_classes_count_the_flagged_labels(report):
    issues, suggested = report.label_issues, report.label_issues.suggested_labels
    pairs = report.finding("label-errors").class_pairs
    assert pairs
    for pair in pairs:
        is_pair = (issues.given_labels == pair.given) & (suggested == pair.suggested)
        assert pair.num_flagged == (is_pair & issues.flagged).sum()
    estimates = [pair.estimate for pair in pairs]
    assert estimates == sorted(estimates, reverse=True)


def test_the_scores_that_are_written_are_those_of_the_label_issues(report):
    np.testing.assert_allclose(report.arrays["train_label_scores"], report.label_issues.scores, rtol=1e-6)
    finding = report.finding("label-errors")
    ordered = np.sort(report.label_issues.scores)[::-1]
    np.testing.assert_array_equal(finding.scores, ordered[np.array(finding.ranks) - 1])


def test_the_page_shows_the_interval_the_pairs_of_classes_and_the_scores(report):
    finding, page = report.finding("label-errors"), render_page(report)
    assert (
        f"{finding.count} training labels are wrong, perhaps more ({finding.low} to {finding.high})" in page
    )
    first, pair = finding.issues[0], finding.class_pairs[0]
    assert f"score {first.score:+.1f}" in page
    row = page.split(f'data-pair="{pair.given}-{pair.suggested}"')[1].split("</button>")[0]
    assert f'<span class="est">about {pair.estimate:.0f}</span>' in row


def test_the_detection_curve_counts_the_known_errors(report, planted):
    finding = report.finding("label-errors")
    order = np.argsort(-report.label_issues.scores, kind="stable")
    for point in finding.detection.points:
        assert point.found == np.isin(order[: point.inspected], planted.swapped).sum()
        assert point.known == NUM_SWAPPED
    assert [point.inspected for point in finding.detection.points] == [21, 35, 70]
    assert finding.detection.area > 0.95


@pytest.mark.parametrize(
    ("K", "num_train", "path"),
    [
        (0.4, 1500, [0.001, 0.01, 0.02, 0.1, 1, 10]),
        (0.2, 3000, [0.001, 0.01, 0.1, 1, 10]),  # 30 / n on the path
        (0.01, 3000, [0.001, 0.1, 1, 10]),
        (6e-4, 10**6, [3e-5, 0.001, 0.01, 0.1, 1, 10]),
    ],
)
def test_the_path_goes_through_every_K_once(K, num_train, path):
    assert surrogate.path_Ks(K, num_train) == pytest.approx(path)


def test_wrong_predictions_are_those_of_the_model_surest_first(report, planted):
    images, targets = planted.test
    probabilities = keras.ops.softmax(planted.model.predict(images, verbose=0)).numpy()
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != targets)
    finding = report.finding("wrong-predictions")
    assert finding.count == len(wrong)
    surest = wrong[np.argsort(-probabilities[wrong].max(axis=1))][:12]
    assert [item.example.index for item in finding.predictions] == list(surest)
    confidences = [item.confidence for item in finding.predictions]
    np.testing.assert_allclose(confidences, probabilities[surest].max(axis=1), rtol=1e-4)


def test_proponents_and_opponents_are_the_extremes_of_all_influence_values(report, planted):
    train, test = planted.datasets()
    calculator = DualView(InfluenceModel(planted.model), train, kernel="cosine")
    values = np.concatenate(list(calculator.estimate_influence_values_in_batches(test).as_numpy_iterator()))
    for item in report.finding("wrong-predictions").predictions:
        row = values[item.example.index]
        found = [influence.value for influence in item.proponents]
        np.testing.assert_allclose(found, np.sort(row)[::-1][:3], rtol=1e-4)
        found = [influence.value for influence in item.opponents]
        np.testing.assert_allclose(found, np.sort(row)[:3], rtol=1e-4)


def test_the_shares_of_all_training_examples_add_up_to_one(report):
    sums = report.attributions.sum(axis=1)
    for item in report.finding("wrong-predictions").predictions:
        assert sums[item.example.index] == pytest.approx(item.logit, rel=1e-3, abs=1e-4)
        for influence in item.proponents:
            assert influence.share == pytest.approx(influence.value / item.logit)


def test_a_leaked_test_image_is_found_and_one_that_is_almost_the_same(report):
    finding = report.finding("leaks")
    pairs = {(pair.first.index, pair.second.index): pair for pair in finding.pairs}
    assert pairs[LEAKED, 30].is_identical
    assert not pairs[NEARLY_LEAKED, 31].is_identical
    assert finding.num_identical == 1
    assert finding.count <= 3


def test_a_duplicate_of_another_label_is_found(report, planted):
    finding = report.finding("duplicates-conflicting")
    assert (DOUBLED, planted.double) in {(pair.first.index, pair.second.index) for pair in finding.pairs}
    assert finding.num_identical == 2


def test_influential_examples_are_counted_in_the_lists_of_proponents(report):
    matrix, predictions = report.attributions.toarray(), report.arrays["test_predictions"]
    for group in report.finding("influential-examples").classes:
        rows = matrix[predictions == group.label]
        assert group.num_predictions == len(rows)
        busiest = group.examples[0]
        top = np.argsort(-rows, axis=1, kind="stable")[:, :3]
        assert busiest.num_predictions == (top == busiest.example.index).any(axis=1).sum()


def test_rates_are_the_shares_that_thresholds_can_name(report):
    assert set(report.rates) == {
        "label-errors",
        "wrong-predictions",
        "leaks",
        "duplicates-conflicting",
        "unfaithful",
        "not-finite",
    }
    assert report.rates["unfaithful"] == pytest.approx(
        np.mean(report.arrays["surrogate_logits"].argmax(axis=1) != report.arrays["test_predictions"])
    )


def test_the_path_goes_from_many_support_vectors_to_few(report):
    points = report.finding("sparsity-path").points
    assert len(points) >= 5
    shares = [point.share_support_vectors for point in points]
    assert shares == sorted(shares, reverse=True)
    own = [point for point in points if point.scale_free_K == report.overview.certificate.scale_free_K]
    assert own[0].num_support_vectors == report.overview.num_support_vectors


def test_the_head_tells_certificate_time_and_memory(report):
    overview = report.overview
    assert 0 <= overview.certificate.relative_gap <= overview.certificate.tolerance
    assert overview.seconds >= sum(step.seconds for step in overview.steps) > 0
    assert overview.num_train == 701 and overview.num_test == 150
    assert sum(counts.num_train for counts in overview.classes) == 701
    if sys.platform != "win32":
        assert overview.peak_memory_bytes > 2**20


def test_an_unfaithful_surrogate_is_told_first(report):
    agreement = 1 - report.rates["unfaithful"]
    assert (report.findings[0].name == "unfaithful") == (agreement < 0.95)


def test_only_examples_that_are_shown_are_kept(report):
    from deel_dualview.auditing.reading import references_in

    referred = {(item.split, item.index) for item in references_in(report.findings)}
    assert set(report.shown) == referred


def test_shown_examples_are_those_of_their_index(report, planted):
    for (split, index), shown in report.shown.items():
        images = planted.train[0] if split == "train" else planted.test[0]
        np.testing.assert_array_equal(shown, images[index])


def test_batch_size_changes_no_finding(report, planted):
    other = audit(
        planted.model,
        to_dataset(*planted.train, batch_size=97),
        to_dataset(*planted.test, batch_size=7),
        k=3,
        known_label_errors=planted.swapped,
        relevance=None,
        progress=False,
    )
    # Features differ in the last bits of float32, and with them the heads that are fitted to them.
    np.testing.assert_allclose(other.label_issues.scores, report.label_issues.scores, atol=5e-3)
    assert other.label_issues.count == report.label_issues.count
    np.testing.assert_array_equal(other.arrays["test_predictions"], report.arrays["test_predictions"])
    for name in ("leaks", "duplicates-conflicting"):
        assert other.finding(name) == report.finding(name)


def test_an_unlabelled_test_set_gets_uncertain_predictions(planted):
    train, _ = planted.datasets()
    report = audit(planted.model, train, to_dataset(planted.test[0]), k=2, relevance=None, progress=False)
    finding = report.finding("uncertain-predictions")
    confidences = [item.confidence for item in finding.predictions]
    assert confidences == sorted(confidences)
    assert report.overview.test_accuracy is None
    assert "wrong-predictions" not in report.rates
    assert "test_labels" not in report.arrays


@pytest.mark.parametrize("kind", ["text", "integer"])
def test_ids_of_the_user_travel_with_the_findings(planted, kind, tmp_path):
    (images, given), (test_images, targets) = planted.train, planted.test
    numbers = np.arange(len(images)) + 1000
    ids = numbers if kind == "integer" else np.array([f"image-{number}" for number in numbers])
    train = to_dataset(images, given, ids)
    report = audit(
        planted.model, train, to_dataset(test_images, targets), k=2, relevance=None, progress=False
    )
    for issue in report.finding("label-errors").issues:
        assert issue.example.id == ids[issue.example.index]
    folder = report.to_html(tmp_path / "audit").parent
    with np.load(folder / "attributions.npz", allow_pickle=False) as archive:
        assert len(archive["train_ids"]) == 701
    with (folder / "label_issues.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    order = report.label_issues.order
    assert [row["id"] for row in rows] == [str(ids[position]) for position in order]
    assert [int(row["position"]) for row in rows] == order.tolist()


def test_one_hot_labels_and_bytes_as_pixels_are_audited(planted):
    (images, given), (test_images, targets) = planted.train, planted.test
    train = to_dataset((images * 255).astype(np.uint8), np.eye(10, dtype=np.float32)[given])
    test = to_dataset((test_images * 255).astype(np.uint8), np.eye(10, dtype=np.float32)[targets])
    report = audit(planted.model, train, test, k=2, progress=False)
    assert report.overview.num_train == 701


def test_a_calculator_of_ones_own_is_used(planted):
    train, test = planted.datasets()
    calculator = DualView(InfluenceModel(planted.model), train, K=0.5, kernel="linear")
    report = audit(calculator.model, train, test, k=2, method=calculator, relevance=None, progress=False)
    assert report.overview.certificate.scale_free_K == 0.5
    assert ("Kernel", "linear") in [(item.name, item.value) for item in report.overview.settings]


def text_model(texts: np.ndarray, given: np.ndarray) -> keras.Model:
    keras.utils.set_random_seed(0)
    vectorize = keras.layers.TextVectorization(output_mode="multi_hot")
    vectorize.adapt(texts)
    model = keras.Sequential(
        [keras.Input((), dtype="string"), vectorize, keras.layers.Dense(8, "relu"), keras.layers.Dense(2)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(texts, given, epochs=5, verbose=0)
    return model


def test_texts_are_audited_and_shown_as_texts(tmp_path, rng):
    words = np.array(["good", "fine", "great", "bad", "poor", "awful"])
    given = rng.integers(0, 2, 60)
    texts = np.array(
        [
            " ".join(rng.choice(words[3 * one : 3 * one + 3], 4)) + f" <em>{i}</em>"
            for i, one in enumerate(given)
        ]
    )
    texts[59], given[59] = texts[0], 1 - given[0]
    model = text_model(tf.constant(texts), given)
    report = audit(model, to_dataset(texts, given), to_dataset(texts[:10], given[:10]), k=2, progress=False)
    assert report.finding("leaks").num_identical == 10
    assert report.finding("duplicates-conflicting").num_identical == 2
    page = report.to_html(tmp_path / "audit").read_text(encoding="utf-8")
    assert "<em>" not in page
    assert "&lt;em&gt;" in page


def test_several_inputs_in_a_dict_are_audited_and_shown(tmp_path, rng):
    keras.utils.set_random_seed(0)
    image, row = keras.Input((8, 8), name="image"), keras.Input((3,), name="row")
    joined = keras.layers.Concatenate()([keras.layers.Flatten()(image), row])
    hidden = keras.layers.Dense(6, "relu")(joined)
    model = keras.Model({"image": image, "row": row}, keras.layers.Dense(2, "softmax")(hidden))
    inputs = {"image": rng.random((40, 8, 8), np.float32), "row": rng.random((40, 3), np.float32)}
    given = rng.integers(0, 2, 40)
    train = tf.data.Dataset.from_tensor_slices((inputs, given)).batch(16)
    report = audit(model, train, train.take(1), k=2, progress=False)
    assert report.finding("leaks").num_identical == 16
    page = report.to_html(tmp_path / "audit").read_text(encoding="utf-8")
    assert "data:image/png" in page
    assert "column 2" in page


def test_a_binary_model_of_one_output_is_audited(rng):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1, "sigmoid")]
    )
    rows = rng.normal(size=(50, 5)).astype(np.float32)
    given = (rows[:, 0] > 0).astype(np.int64)
    model.compile("adam", "binary_crossentropy")
    model.fit(rows, given, epochs=5, verbose=0)
    report = audit(model, to_dataset(rows, given), to_dataset(rows, given), k=2, progress=False)
    probabilities = model.predict(rows, verbose=0)[:, 0]
    expected = np.maximum(probabilities, 1 - probabilities)
    np.testing.assert_allclose(report.arrays["test_confidences"], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"k": 0}, "k"),
        ({"k": 5000}, "k"),
        ({"class_names": ["a", "b"]}, "class_names"),
        ({"class_names": ["a"] * 10}, "must differ"),
        ({"known_label_errors": [701]}, "known_label_errors"),
        ({"known_label_errors": [-1]}, "known_label_errors"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(planted, argument, message):
    train, test = planted.datasets()
    with pytest.raises(ValueError, match=message):
        audit(planted.model, train, test, progress=False, **argument)


def test_an_unbatched_dataset_is_refused_before_any_work(planted):
    train, test = planted.datasets()
    with pytest.raises(ValueError, match=r"test.*batch"):
        audit(planted.model, train, test.unbatch(), progress=False)


def test_a_reshuffling_training_set_is_refused(planted):
    train = tf.data.Dataset.from_tensor_slices(planted.train).shuffle(500).batch(64)
    with pytest.raises(ValueError, match="shuffle"):
        audit(planted.model, train, planted.datasets()[1], progress=False)


def test_test_inputs_of_another_structure_are_refused(planted):
    train, test = planted.datasets()
    with pytest.raises(ValueError, match="same structure"):
        audit(planted.model, train, test.map(lambda image, label: ({"image": image}, label)), progress=False)


def test_a_calculator_of_another_target_or_model_is_refused(planted):
    train, test = planted.datasets()
    calculator = DualView(InfluenceModel(planted.model), train, target="label")
    with pytest.raises(ValueError, match="target"):
        audit(planted.model, train, test, method=calculator, progress=False)
    other = DualView(InfluenceModel(keras.models.clone_model(planted.model)), train)
    with pytest.raises(ValueError, match="another model"):
        audit(planted.model, train, test, method=other, progress=False)


def test_a_calculator_of_another_training_set_is_refused(planted):
    train, test = planted.datasets()
    calculator = DualView(InfluenceModel(planted.model), train.skip(1))
    with pytest.raises(ValueError, match="training set"):
        audit(planted.model, train, test, method=calculator, progress=False)


def test_examples_that_change_between_passes_are_refused(rng):
    images = rng.random((20, 8, 8))
    contents = read_contents(to_dataset(images), duplicates.Sketcher())
    with pytest.raises(ValueError, match="changes between two passes"):
        gather_inputs(to_dataset(images[::-1]), [3], contents.hashes)


def test_gathering_stops_at_the_last_example_that_is_needed(rng):
    images = rng.random((20, 8, 8))
    passed = []

    def generate():
        for position, image in enumerate(images):
            passed.append(position)
            yield image

    dataset = tf.data.Dataset.from_generator(
        generate, output_signature=tf.TensorSpec((8, 8), tf.float64)
    ).batch(2)
    found = gather_inputs(dataset, [3, 0], hash_inputs(images))
    np.testing.assert_array_equal(found[3], images[3])
    assert set(found) == {0, 3}
    assert len(passed) < 20


def test_area_under_the_curve_agrees_with_scikit_learn(rng):
    from sklearn.metrics import roc_auc_score

    values, is_positive = rng.integers(0, 5, 200).astype(float), rng.random(200) < 0.3
    assert labels.area_under_roc(values, is_positive) == pytest.approx(roc_auc_score(is_positive, values))
