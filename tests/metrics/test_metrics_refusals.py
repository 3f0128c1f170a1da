"""What metrics and the benchmark refuse, because they would score it as if nothing were wrong."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

from deel_dualview import metrics
from deel_dualview.evaluation import benchmark

VALUES = np.random.default_rng(0).normal(size=(7, 20))


def test_logits_of_one_column_are_refused():
    with pytest.raises(ValueError, match="two classes or more"):
        metrics.SurrogateFidelity().update_state(np.ones((4, 1)), -np.ones((4, 1)))


@pytest.mark.parametrize("kind", [metrics.CoreSet, metrics.Pruning])
def test_losses_of_another_number_of_tests_are_refused(kind):
    metric = kind(lambda kept: np.ones(len(kept)))
    metric.update_state(VALUES)
    with pytest.raises(ValueError, match="of the same test examples every time"):
        metric.result()


def test_pruning_never_trains_on_nothing():
    sizes = []
    metric = metrics.Pruning(lambda kept: sizes.append(len(kept)) or np.ones(7), [0.99], num_resamples=0)
    metric.update_state(VALUES)
    metric.result()
    assert sizes == [1]


@pytest.mark.parametrize(
    "make", [metrics.LabelPoisoning, metrics.LabelErrorDetection, metrics.LinearDatamodelingScore]
)
def test_positions_in_the_place_of_flags_are_refused(make):
    flags = np.arange(20) if make is not metrics.LinearDatamodelingScore else np.arange(40).reshape(2, 20)
    with pytest.raises(ValueError, match="booleans, or 0 and 1"):
        make(flags)


def test_more_proponents_than_training_examples_are_refused():
    with pytest.raises(ValueError, match="k"):
        metrics.TopKClass(21).update_state(VALUES, np.zeros(20, int), np.zeros(7, int))


CLASSES = np.arange(20) % 3, np.arange(7) % 3
NAMES = np.array(["cat", "dog", "owl"])


def _domain(*labels_and_predictions):
    metric = metrics.DomainMismatch(np.arange(20) < 5, 2)
    metric.update_state(VALUES, *labels_and_predictions)


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (NAMES[CLASSES[1]], "'cat'"),
        (np.where(CLASSES[1] == 1, np.nan, CLASSES[1]), "nan"),
        (CLASSES[1] + 0.5, "float64"),
        (CLASSES[1].astype(object), "object"),
    ],
    ids=["names", "nan", "halves", "objects"],
)
@pytest.mark.parametrize(
    "score",
    [
        lambda wrong: metrics.TopKClass(2).update_state(VALUES, CLASSES[0], wrong),
        lambda wrong: metrics.IdenticalClass().update_state(VALUES[:, :7], wrong, CLASSES[1]),
        lambda wrong: metrics.IdenticalClass().update_top_k(np.zeros((7, 1), int), wrong, CLASSES[1]),
        lambda wrong: metrics.IdenticalClass().update_top_k(np.zeros((7, 1), int), CLASSES[0], wrong),
        lambda wrong: metrics.IdenticalSubclass().update_state(VALUES, CLASSES[0], wrong),
        lambda wrong: metrics.IdenticalSubclass().update_state(VALUES[:, :7], wrong, CLASSES[1]),
        lambda wrong: metrics.IdenticalSubclass().update_top_k(np.zeros((7, 1), int), wrong, CLASSES[1]),
        lambda wrong: metrics.IdenticalSubclass().update_top_k(np.zeros((7, 1), int), CLASSES[0], wrong),
        lambda wrong: _domain(wrong, CLASSES[1]),
        lambda wrong: _domain(CLASSES[1], wrong),
        lambda wrong: metrics.Brittleness(lambda kept: CLASSES[1], 2).update_state(VALUES, wrong),
        lambda wrong: metrics.Brittleness(lambda kept: wrong, 2).update_state(VALUES, CLASSES[1]),
    ],
)
def test_classes_that_are_no_integers_are_refused_and_not_counted_as_misses(score, wrong, shown):
    with pytest.raises(ValueError, match="must be classes as integers") as caught:
        score(wrong)
    assert shown in str(caught.value)


@pytest.mark.parametrize("marked_class", ["2", 2.5, None, float("nan")])
def test_a_marked_class_that_is_no_integer_is_refused(marked_class):
    with pytest.raises(ValueError, match="`marked_class` must be classes as integers"):
        metrics.DomainMismatch(np.arange(20) < 5, marked_class)


def test_whole_numbers_of_other_types_are_classes():
    expected = metrics.TopKClass(2)
    expected.update_state(VALUES, *CLASSES)
    metric = metrics.TopKClass(2)
    metric.update_state(VALUES, CLASSES[0].astype(np.float32), list(CLASSES[1]))
    assert metric.result() == expected.result()


def test_one_hot_labels_of_top_k_positions_are_refused():
    with pytest.raises(ValueError, match="`training_labels` must have one entry an example"):
        metrics.IdenticalClass().update_top_k(np.zeros((7, 1), int), np.eye(3)[CLASSES[0]], CLASSES[1])


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_recall_outside_of_the_training_set_is_refused(share):
    metric = metrics.LabelErrorDetection(np.arange(20) < 5)
    metric.update_state(np.arange(20.0))
    assert (metric.recall_at(0), metric.recall_at(1)) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"between 0 and 1. Received: share="):
        metric.recall_at(share)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: metrics.Sparsity().effective_number,
        lambda: metrics.Sparsity().num_for_mass,
        lambda: metrics.PixelFlipping(None).curve,
    ],
)
def test_further_figures_of_no_example_are_refused(ask):
    with pytest.raises(ValueError, match="has seen no example: call `update_state`"):
        ask()


def test_the_average_precision_of_no_misled_example_says_what_came():
    metric = metrics.DomainMismatch(np.arange(20) < 5, 2)
    metric.update_state(VALUES, np.full(7, 2), np.full(7, 2))
    with pytest.raises(ValueError, match=r"No test example was misled.*seen=7, of that class=7"):
        metric.average_precision


def test_lists_of_two_training_sets_are_refused_until_a_reset():
    metric = metrics.TopKCardinality(3)
    metric.update_state(VALUES)
    with pytest.raises(ValueError, match=r"of one training set.*n=19, n so far=20"):
        metric.update_state(VALUES[:, :19])
    assert metric.result().num_examples == 7
    metric.reset_state()
    metric.update_state(VALUES[:, :19])


@pytest.mark.parametrize("seeds", [[], [-1], ["a"], "0", [0, 0]])
def test_seeds_are_how_many_or_which(seeds, tmp_path):
    with pytest.raises(ValueError, match="(?i)seeds"):
        benchmark("digits", ["random"], seeds=seeds, output=tmp_path)


NO_NUMBERS = [VALUES * 1j, VALUES.astype(str), VALUES.astype(object)]


@pytest.mark.parametrize("wrong", [*NO_NUMBERS, scipy.sparse.csr_array(VALUES * 1j)])
@pytest.mark.parametrize(
    "score",
    [
        lambda wrong: metrics.TopKCardinality(3).update_state(wrong),
        lambda wrong: metrics.Completeness().update_state(wrong, VALUES[:, 0]),
        lambda wrong: metrics.CoreSet(lambda kept: VALUES[:, 0]).update_state(wrong),
    ],
)
def test_influence_values_that_are_no_real_numbers_are_refused(score, wrong):
    with pytest.raises(ValueError, match="Influence values must be real numbers. Received: dtype="):
        score(wrong)


@pytest.mark.parametrize("wrong", NO_NUMBERS)
@pytest.mark.parametrize(
    "score",
    [
        lambda wrong: metrics.SurrogateFidelity().update_state(VALUES, wrong),
        lambda wrong: metrics.LeaveOneOut().update_state(VALUES, wrong),
        lambda wrong: metrics.Completeness().update_state(VALUES, wrong[:, 0]),
        lambda wrong: metrics.LabelErrorDetection(np.arange(7) < 3).update_state(wrong[:, 0]),
        lambda wrong: _core_set_result(wrong[:, 0]),
    ],
)
def test_other_numbers_that_are_not_real_are_refused(score, wrong):
    with pytest.raises(ValueError, match="must be real numbers. Received: dtype="):
        score(wrong)


def _core_set_result(losses):
    metric = metrics.CoreSet(lambda kept: losses)
    metric.update_state(VALUES)
    return metric.result()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "bool"])
def test_values_of_every_real_type_are_taken(dtype):
    values = tf.cast(VALUES > 0, dtype)
    metric, expected = metrics.TopKCardinality(3), metrics.TopKCardinality(3)
    metric.update_state(values)
    expected.update_state(np.float64(VALUES > 0))
    assert metric.result() == expected.result()


def test_a_sparse_tensor_is_a_matrix():
    metric, expected = metrics.IdenticalClass(), metrics.IdenticalClass()
    values = np.where(VALUES > 1, VALUES, 0)
    metric.update_state(tf.sparse.from_dense(values), *CLASSES)
    expected.update_state(values, *CLASSES)
    assert metric.result() == expected.result()


@pytest.mark.parametrize(
    "score",
    [
        lambda masked: metrics.IdenticalClass().update_state(masked, *CLASSES),
        lambda masked: metrics.LeaveOneOut().update_state(VALUES, masked),
        lambda masked: metrics.IdenticalClass().update_state(VALUES[:, :7], masked[:, 0], CLASSES[1]),
        lambda masked: metrics.LabelErrorDetection(masked[0] > 0),
        lambda masked: metrics.LabelErrorDetection(np.arange(20) < 5).update_state(masked[0]),
    ],
)
def test_masked_entries_are_refused_and_not_taken_for_numbers(score):
    with pytest.raises(ValueError, match=r"no masked entries.*num_masked="):
        score(np.ma.masked_array(VALUES, VALUES > 0))
    metrics.IdenticalClass().update_state(np.ma.masked_array(VALUES), *CLASSES)


@pytest.mark.parametrize(("wrong", "shown"), [(0.5, r"0\.5"), (-1e30, r"-1\.e\+30"), (np.inf, "inf")])
def test_the_entry_that_is_no_class_is_shown(wrong, shown):
    classes = CLASSES[1].astype(float)
    classes[3] = wrong
    with pytest.raises(ValueError, match=rf"values=array\(\[{shown}\]"):
        metrics.IdenticalClass().update_state(VALUES, CLASSES[0], classes)


def test_classes_and_flags_of_small_types_are_taken():
    small, marks = tf.cast(CLASSES[1], "bfloat16"), tf.cast(np.arange(20) < 5, "bfloat16")
    metric, expected = metrics.DomainMismatch(marks, 2), metrics.DomainMismatch(np.arange(20) < 5, 2)
    metric.update_state(VALUES, small * 0, small)
    expected.update_state(VALUES, CLASSES[1] * 0, CLASSES[1])
    assert metric.result() == expected.result()


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_correlations_do_not_depend_on_the_scale(scale):
    metric, expected = metrics.LeaveOneOut(), metrics.LeaveOneOut()
    metric.update_state(VALUES * scale, VALUES**3)
    expected.update_state(VALUES, VALUES**3)
    np.testing.assert_allclose(metric.scores, expected.scores, rtol=1e-12)


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda: _core_set_result(np.empty(0)), "one finite loss a test example.*shape="),
        (
            lambda: metrics.IdenticalClass().update_state(VALUES[:, :0], [], CLASSES[1]),
            r"matrix.*shape=\(7, 0\)",
        ),
        (lambda: metrics.SurrogateFidelity(confidence_level="a"), "`confidence_level` must lie between"),
        (lambda: metrics.Pruning(np.mean, 0.5), "`shares` must be numbers between 0 and 1.*shares=0.5"),
        (lambda: metrics.Pruning(np.mean, ["a"]), "`shares` must be numbers between 0 and 1"),
        (lambda: metrics.LabelErrorDetection(np.arange(20) < 5).recall_at("a"), "`share` must lie between"),
        (lambda: metrics.TopKCardinality(2).update_top_k([[0, -1]]), "training set, 0 or more.*smallest=-1"),
        (lambda: metrics.TopKCardinality(2).update_top_k([[0, 1], [4, 4]]), r"proponent .* once.*rows=\[1\]"),
        (
            lambda: metrics.RecallAtK(2).update_top_k([[1, 1]], np.array([[False, True, False]])),
            r"rows=\[0\]",
        ),
        (lambda: metrics.TopKCardinality(2).update_top_k([[-3, -2]]), "smallest=-3, largest=-2"),
        (
            lambda: metrics.IdenticalClass().update_top_k([[7]], [0, 1], [0]),
            r"training set, 0\.\.1.*smallest=7, largest=7",
        ),
        (lambda: metrics.SurrogateFidelity(seed=-1), "`seed` must be an integer that is not negative"),
        (lambda: metrics.SurrogateFidelity(seed="x"), "`seed` must be an integer that is not negative"),
        (lambda: _fed(metrics.CoreSet(lambda kept: [1.0]), VALUES[:, :1]).result(), "two training examples"),
        (
            lambda: metrics.LinearDatamodelingScore(np.eye(3)).noise_ceiling(VALUES[:0, :3], VALUES[:0, :3]),
            "At least one test example",
        ),
        (
            lambda: _fed(metrics.SurrogateFidelity(), VALUES[:0], VALUES[:0]).logit_cosine,
            "has seen no example",
        ),
        (
            lambda: _fed(metrics.SurrogateFidelity(), VALUES, VALUES).update_state(
                VALUES[:, :2], VALUES[:, :2]
            ),
            "same classes in every batch.*num_classes=2, before=20",
        ),
    ],
)
def test_what_has_no_result_is_refused(score, message):
    with pytest.raises(ValueError, match=message):
        score()


def _fed(metric, *batch):
    metric.update_state(*batch)
    return metric


@pytest.mark.parametrize("make", [lambda: metrics.CoreSet(3), lambda: metrics.Brittleness(None, 3)])
def test_what_cannot_retrain_is_refused_at_once(make):
    with pytest.raises(TypeError, match="`retrain` must be a function"):
        make()


def test_completeness_takes_one_training_set_until_a_reset():
    metric = metrics.Completeness()
    metric.update_state(VALUES, VALUES.sum(axis=1))
    with pytest.raises(ValueError, match="same training set in every batch.*num_train=19, before=20"):
        metric.update_state(VALUES[:, :19], VALUES[:, 0])
    assert metric.result().num_examples == 7
    metric.reset_state()
    metric.update_state(VALUES[:, :19], VALUES[:, 0])
