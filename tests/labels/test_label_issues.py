"""label_issues on small networks: wrong labels come first, their number is told or said not to be."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from cost_cases import BATCH, INPUTS, NUM_TEST, NUM_TRAIN, TRAIN, counting_model
from sklearn.metrics import roc_auc_score

from deel_dualview import InfluenceModel, label_issues, load_digits, swap_labels
from deel_dualview.models.hidden import HiddenLayers

NUM_WRONG = 40


def dataset(*parts, batch_size=128):
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch_size)


@pytest.fixture(scope="module")
def digits():
    """Digits with swapped labels, and a network that has memorised them."""
    (images, labels), (test_images, test_labels) = load_digits()
    swapped = swap_labels(labels[:800], NUM_WRONG, num_classes=10, seed=3)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(64, "relu"),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(keras.optimizers.Adam(0.003), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:800], swapped.labels, epochs=120, batch_size=64, verbose=0)
    return model, (images[:800], swapped.labels), (test_images, test_labels), swapped.indices


@pytest.fixture(scope="module")
def found(digits):
    model, train, test, _ = digits
    names = [f"digit {number}" for number in range(10)]
    ids = np.array([f"scan-{number:03}" for number in range(800)])
    return label_issues(model, dataset(*train, ids), dataset(*test), class_names=names, progress=False)


def is_wrong(digits):
    return np.isin(np.arange(800), digits[3])


def test_wrong_labels_have_the_highest_scores_though_the_network_has_memorised_them(digits, found):
    assert found.training_accuracy > 0.99
    assert roc_auc_score(is_wrong(digits), found.scores) > 0.98
    assert is_wrong(digits)[found.order[:NUM_WRONG]].mean() > 0.8


def test_wrong_labels_are_counted(digits, found):
    assert found.count.status == "counted"
    assert NUM_WRONG / 2 <= found.count.estimate <= 2 * NUM_WRONG
    assert found.count.low <= NUM_WRONG <= found.count.high
    np.testing.assert_array_equal(np.flatnonzero(found.flagged), np.sort(found.order[: found.count.estimate]))


def test_class_pairs_add_up_to_the_count(found):
    assert sum(pair.num_flagged for pair in found.class_pairs) == found.count.estimate
    assert f"about {found.count.estimate} wrong" in repr(found)
    for pair in found.class_pairs:
        chosen = (
            found.flagged & (found.given_labels == pair.given) & (found.suggested_labels == pair.suggested)
        )
        assert chosen.sum() == pair.num_flagged and pair.given != pair.suggested


def test_no_label_is_suggested_to_itself(found):
    assert (found.suggested_labels != found.given_labels).all()


def test_right_labels_are_suggested_for_most_wrong_ones(digits, found):
    truth = load_digits()[0][1][:800]
    assert (found.suggested_labels == truth)[digits[3]].mean() > 0.8


def test_the_network_that_memorised_is_named(found):
    assert found.has_memorised and found.deviations_easier > 3
    assert found.test_accuracy < found.training_accuracy


def test_weights_of_the_heads_add_up_to_one(found):
    assert sum(head.weight for head in found.heads) == pytest.approx(1)
    assert len({head.name for head in found.heads}) == len(found.heads) == 5


def test_a_count_is_not_given_without_test_labels(digits):
    model, train, _, _ = digits
    found = label_issues(model, dataset(*train), progress=False)
    assert found.count.status == "cannot tell" and "test set" in found.count.reason
    assert not found.flagged.any() and found.test_accuracy is None and found.deviations_easier is None
    assert roc_auc_score(is_wrong(digits), found.scores) > 0.95


def test_a_column_that_gives_the_label_hides_wrong_labels(rng):
    """Right and wrong labels fit it alike, so that neither a count nor a bound may be given."""
    truth = np.arange(900) % 3
    given = swap_labels(truth[:600], 60, num_classes=3, seed=1).labels
    labels = np.concatenate([given, truth[600:]])
    columns = rng.normal(size=(900, 4)) + 5 * np.eye(3, 4)[truth]
    counts = {}
    for name, last in {"leaking": 2.0 - labels, "other": rng.normal(size=900)}.items():
        rows = np.column_stack([columns, last]).astype("float32")
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
        model.layers[0].set_weights([np.eye(5, 3), np.zeros(3)])
        found = label_issues(
            model, dataset(rows[:600], given), dataset(rows[600:], truth[600:]), progress=False
        )
        counts[name] = found.count
    assert counts["leaking"].status == "cannot tell"
    assert "a column of the inputs gives the label alone" in counts["leaking"].reason
    assert counts["other"].status == "counted" and counts["other"].low <= 60 <= counts["other"].high


def test_clean_labels_give_no_count(digits):
    (images, labels), test = load_digits()
    found = label_issues(digits[0], dataset(images[:800], labels[:800]), dataset(*test), progress=False)
    assert found.count.status == "at most" and found.count.estimate is None
    assert not found.flagged.any()


def test_the_same_seed_gives_the_same_scores_whatever_the_batches(digits, found):
    model, train, test, _ = digits
    again = label_issues(
        model, dataset(*train, batch_size=300), dataset(*test, batch_size=50), progress=False
    )
    np.testing.assert_allclose(again.scores, found.scores, atol=0.2)
    assert np.corrcoef(again.scores, found.scores)[0, 1] > 0.999


def test_given_probabilities_have_half_the_weight(digits, found):
    model, train, test, _ = digits
    truth = np.eye(10)[load_digits()[0][1][:800]]
    probabilities = 0.99 * truth + 0.001
    again = label_issues(model, dataset(*train), dataset(*test), pred_probs=probabilities, progress=False)
    assert again.heads[-1].name == "given probabilities" and again.heads[-1].weight == pytest.approx(0.5)
    assert roc_auc_score(is_wrong(digits), again.scores) == 1
    assert again.count == found.count


def test_the_checkpoint_at_a_fifth_of_the_way_gets_heads(digits):
    model, train, test, _ = digits
    blank = keras.models.clone_model(model)
    for weights in blank.weights:
        weights.assign(tf.zeros_like(weights))
    found, others = (
        label_issues(model, dataset(*train), dataset(*test), checkpoints=models, progress=False)
        for models in ([blank, model, blank, blank, blank], [model, blank, model, model, model])
    )
    weights = {head.name: head.weight for head in found.heads}
    useless = {head.name: head.weight for head in others.heads}
    name = "kernel ridge on features of an early checkpoint"
    assert weights[name] > 0.02 > useless[name]


def test_the_file_has_every_label_the_likeliest_wrong_one_first(found, tmp_path):
    path = tmp_path / "label_issues.csv"
    found.to_csv(path)
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["position"]) for row in rows] == found.order.tolist()
    assert rows[0]["id"] == f"scan-{found.order[0]:03}"
    assert rows[0]["given_label"] == f"digit {found.given_labels[found.order[0]]}"
    assert sum(row["flagged"] == "True" for row in rows) == found.count.estimate


def test_the_file_runs_no_formula(digits, tmp_path):
    model, train, test, _ = digits
    names = ["=1+1", "+a", "-b", "@c", *"defghi"]
    found = label_issues(model, dataset(*train), dataset(*test), class_names=names, progress=False)
    found.to_csv(tmp_path / "issues.csv")
    with (tmp_path / "issues.csv").open(encoding="utf-8", newline="") as file:
        cells = {row["given_label"] for row in csv.DictReader(file)}
    assert {"'=1+1", "'+a", "'-b", "'@c"} < cells and "d" in cells


def test_the_frame_holds_what_the_file_holds(found):
    frame = found.to_frame()
    assert list(frame.columns) == ["position", "id", "given_label", "suggested_label", "score", "flagged"]
    np.testing.assert_array_equal(frame["score"], np.sort(found.scores)[::-1])


def test_the_network_runs_once_over_each_set():
    model, counter = counting_model()
    test = dataset(INPUTS[:NUM_TEST], INPUTS[:NUM_TEST, :3].argmax(axis=1), batch_size=BATCH)
    label_issues(model, TRAIN, test, progress=False)
    # Verifying the model takes a few batches.
    assert NUM_TRAIN + NUM_TEST <= counter.num_examples <= NUM_TRAIN + NUM_TEST + 12 * BATCH


def test_texts_are_taken_as_strings(rng):
    """Two topics; wrong labels are found through the words, by a network that has memorised its sentences."""
    topics = np.arange(300) % 2
    words = np.array([["ball", "goal", "team"], ["stock", "bank", "price"]])
    texts = np.array([" ".join(rng.choice(words[topic], 4)) + f" id{n}" for n, topic in enumerate(topics)])
    given = topics.copy()
    given[:20] = 1 - given[:20]
    vectorize = keras.layers.TextVectorization(output_sequence_length=6)
    vectorize.adapt(texts)
    model = keras.Sequential(
        [
            keras.Input((), dtype="string"),
            vectorize,
            keras.layers.Embedding(len(vectorize.get_vocabulary()), 8),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2),
        ]
    )
    found = label_issues(
        model, dataset(texts[:200], given[:200]), dataset(texts[200:], topics[200:]), progress=False
    )
    assert roc_auc_score(np.arange(200) < 20, found.scores) > 0.95


@pytest.mark.parametrize("width", [8, 600])
def test_the_layer_before_is_the_input_of_the_last_hidden_layer(rng, width):
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(width, "relu"),
            keras.layers.Dense(6, "relu"),
            keras.layers.Dense(3),
        ]
    )
    inputs = tf.constant(rng.normal(size=(40, 5)).astype("float32"))
    influence_model = InfluenceModel(model)
    hidden = HiddenLayers(influence_model)(inputs)
    expected = model.layers[0](inputs).numpy()
    np.testing.assert_allclose(hidden.features, influence_model.features(inputs), atol=1e-6)
    np.testing.assert_allclose(hidden.logits, influence_model.logits(inputs), atol=1e-5)
    if width == 8:
        np.testing.assert_allclose(hidden.before, expected, atol=1e-6)
    else:
        # Of a wide layer random projections, which keep inner products.
        assert hidden.before.shape == (40, 512)
        found, exact = (rows @ rows.T for rows in (hidden.before.numpy(), expected))
        assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > 0.95


def test_token_ids_are_no_layer_before(rng):
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(9, 3),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2),
        ]
    )
    assert HiddenLayers(InfluenceModel(model))(tf.constant(rng.integers(0, 9, (5, 4)))).before is None


@pytest.mark.parametrize(
    ("pred_probs", "message"),
    [
        (np.full((5, 10), 0.1), r"shape \(800, 10\)"),
        (np.full((800, 10), 0.2), "sum 1"),
        (np.tile([1.5, -0.5, *[0.0] * 8], (800, 1)), "at least 0"),
        (np.full((800, 10), np.nan), "sum 1"),
    ],
)
def test_probabilities_of_other_examples_are_refused(digits, pred_probs, message):
    model, train, test, _ = digits
    with pytest.raises(ValueError, match=message):
        label_issues(model, dataset(*train), dataset(*test), pred_probs=pred_probs, progress=False)


def test_a_set_without_labels_is_refused(digits):
    model, train, _, _ = digits
    unlabelled = tf.data.Dataset.from_tensor_slices(train[0]).batch(64)
    with pytest.raises(ValueError, match="`train` must have labels"):
        label_issues(model, unlabelled, progress=False)
    with pytest.raises(ValueError, match="`test` must have labels"):
        label_issues(model, dataset(*train), unlabelled, progress=False)


def test_labels_of_one_class_are_refused(digits):
    model, train, test, _ = digits
    with pytest.raises(ValueError, match="two classes"):
        label_issues(model, dataset(train[0], np.zeros(800, np.int64)), dataset(*test), progress=False)


def test_a_training_set_that_is_shuffled_at_every_pass_is_refused(digits):
    model, train, test, _ = digits
    shuffled = tf.data.Dataset.from_tensor_slices(train).shuffle(800).batch(128)
    with pytest.raises(ValueError, match="shuffle"):
        label_issues(model, shuffled, dataset(*test), progress=False)
