"""The benchmark of label issues: its noise, its arithmetic, its demands, on a few made-up examples."""

import importlib
import pathlib

import numpy as np
import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
NOISES = ["uniform", "asymmetric", "ambiguous"]


def script(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        return importlib.import_module(name)


metrics = script("label_issue_metrics")
bars = script("label_issue_bars")
scores = script("label_issue_scores")
settings = script("label_issue_settings")
tables = script("label_issue_tables")


@pytest.fixture(scope="module")
def data():
    pytest.importorskip("tensorflow_datasets", reason="TensorFlow Datasets is in the extra [tfds]")
    return script("label_issue_data")


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 3, 200)


@pytest.fixture
def probabilities(labels):
    return np.random.default_rng(1).dirichlet(np.ones(3), len(labels))


def result(name="made-up", num_wrong=10, test="right", baseline=0.9, **ours):
    """Return a result as the benchmark writes it; baselines alike, `label_issues` perfect unless told otherwise."""
    ours = {"status": "counted", "estimate": 10, "low": 5, "high": 15, "at_most": None, "flagged": 10} | ours
    ours = {
        "precision": 1.0,
        "recall": 1.0,
        "best_precision_at_flagged": 1.0,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
    } | ours
    ranks = {name: dict.fromkeys(metrics.METRICS, baseline) for name in scores.BASELINES}
    ranks["label_issues"] = dict.fromkeys(metrics.METRICS, ours.pop("score", 1.0))
    return {
        "name": name,
        "setting": {"data": "made-up", "test": test, "is_timed_only": False},
        "num_wrong": num_wrong,
        "num_train": 100,
        "scores": ranks,
        "label_issues": ours,
    }


def bar(results, word):
    return next(found for found in bars.bars(results) if word in found.demand)


@pytest.mark.parametrize("noise", NOISES)
def test_noise_keeps_its_rate_so_that_no_wrong_label_is_the_true_one(data, labels, probabilities, noise):
    given = data.wrong_labels(noise, 0.07, labels, probabilities, seed=0)
    assert (given != labels).sum() == 14


@pytest.mark.parametrize("noise", NOISES)
def test_noise_gives_labels_of_the_classes_that_there_are(data, labels, probabilities, noise):
    assert set(data.wrong_labels(noise, 0.5, labels, probabilities, seed=0)) == {0, 1, 2}


def test_no_noise_leaves_labels_as_they_are(data, labels, probabilities):
    np.testing.assert_array_equal(data.wrong_labels("none", 0.5, labels, probabilities, seed=0), labels)


def test_asymmetric_noise_gives_all_wrong_labels_of_a_class_the_same_class(data, labels, probabilities):
    given = data.wrong_labels("asymmetric", 0.3, labels, probabilities, seed=0)
    assert {len(set(given[(labels == label) & (given != label)])) for label in range(3)} == {1}


def test_ambiguous_noise_gives_the_likeliest_other_class(data, labels, probabilities):
    given = data.wrong_labels("ambiguous", 0.3, labels, probabilities, seed=0)
    rows = np.flatnonzero(given != labels)
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = 0
    np.testing.assert_array_equal(given[rows], others.argmax(axis=1)[rows])


def test_unknown_noise_is_rejected(data, labels, probabilities):
    with pytest.raises(ValueError, match="noise='salt'"):
        data.wrong_labels("salt", 0.1, labels, probabilities, seed=0)


def test_imbalance_keeps_a_geometric_share_of_each_class(data):
    labels = np.repeat([0, 1, 2], 100)
    kept = data.imbalanced_rows(labels, 0.5, seed=0)
    np.testing.assert_array_equal(np.bincount(labels[kept]), [100, 50, 25])


def test_a_perfect_ranking_has_every_metric_at_one():
    found = metrics.rank_metrics(np.array([3.0, 2, 1, 0]), np.array([True, True, False, False]))
    assert found == {"area": 1.0, "average_precision": 1.0, "precision": 1.0}


def test_a_clean_set_has_no_metrics_of_a_ranking():
    assert metrics.rank_metrics(np.array([1.0, 2]), np.zeros(2, bool)) == {}


def test_scores_that_are_not_finite_are_rejected():
    with pytest.raises(ValueError, match="finite"):
        metrics.rank_metrics(np.array([1.0, np.nan]), np.array([True, False]))


def test_precision_among_ties_is_that_of_a_random_order():
    is_wrong = np.array([True, False, True, False, False])
    assert metrics.precision_at(np.array([2.0, 1, 1, 1, 1]), is_wrong, 2) == pytest.approx((1 + 0.25) / 2)


def test_precision_without_ties_is_the_share_of_wrong_labels_among_the_first():
    is_wrong = np.array([True, False, True, False])
    assert metrics.precision_at(np.array([4.0, 3, 2, 1]), is_wrong, 3) == pytest.approx(2 / 3)


def test_flags_have_precision_and_recall():
    found = metrics.flag_metrics(np.array([True, True, False, False]), np.array([True, False, True, True]))
    assert found == {"flagged": 2, "precision": 0.5, "recall": 0.3333}


def test_nothing_flagged_has_no_precision():
    assert metrics.flag_metrics(np.zeros(2, bool), np.array([True, False]))["precision"] is None


@pytest.mark.parametrize(("estimate", "is_near"), [(4.9, False), (5, True), (20, True), (20.1, False)])
def test_a_count_is_near_from_half_to_twice_the_truth(estimate, is_near):
    assert metrics.within_factor(estimate, 10) is is_near


def test_a_shortfall_is_measured_from_the_best_reference():
    made = result(baseline=0.8, score=0.85)
    made["scores"]["kNN(10)"]["area"] = 0.9
    found = metrics.shortfalls([made], "label_issues", ["loss", "kNN(10)"], "area")
    np.testing.assert_allclose(found, [-0.05])


def test_a_shortfall_of_the_margin_itself_is_no_miss():
    assert metrics.num_missed(np.array([0.89 - 0.9, 0.8899 - 0.9, 0.1]), 0.01) == 1


def test_equal_scores_share_their_rank():
    ranks = metrics.mean_ranks([result(score=0.9), result(score=1.0)], ("label_issues", "loss"), "area")
    assert ranks == {"label_issues": 1.25, "loss": 1.75}


def test_a_perfect_run_meets_every_demand():
    clean = result("clean", num_wrong=0, status="none", estimate=None, flagged=0)
    assert all(found.is_met for found in bars.bars([result(), clean]))


def test_a_twentieth_of_the_settings_may_be_below_the_margin():
    good, poor = result(), result("poor", score=0.885)
    assert bar([good] * 19 + [poor], "- .01 in 95 %").is_met
    assert not bar([good] * 18 + [poor], "- .01 in 95 %").is_met


def test_one_setting_far_below_the_best_baseline_misses_and_is_named():
    found = bar([result()] * 99 + [result("poor", score=0.86)], "more than .03")
    assert (found.is_met, found.misses) == (False, ["poor -0.040"])


def test_a_count_on_a_clean_set_misses():
    assert not bar([result(), result("clean", num_wrong=0)], "clean set").is_met


def test_a_bound_on_a_clean_set_is_no_count():
    clean = result("clean", num_wrong=0, status="at most", estimate=None, at_most=4)
    assert bar([result(), clean], "clean set").is_met


def test_counts_are_not_compared_where_the_test_labels_are_not_right():
    assert bar([result(), result("noisy", test="noisy", estimate=0)], "1/2 .. 2").is_met


def test_a_count_far_from_the_truth_misses():
    assert not bar([result(estimate=21)], "1/2 .. 2").is_met


def test_an_interval_beside_the_truth_misses():
    assert not bar([result(low=11)], "cover").is_met


@pytest.mark.parametrize(("baseline", "is_met"), [(0.49, True), (0.5, False)])
def test_cannot_tell_is_no_answer_where_a_baseline_can(baseline, is_met):
    unsure = result(status="cannot tell", estimate=None, flagged=0, baseline=baseline)
    assert bar([result(), unsure], "cannot tell").is_met is is_met


@pytest.mark.parametrize(("best", "is_met"), [(0.49, True), (0.5, False)])
def test_flags_may_be_mostly_right_only_where_no_score_does_better(best, is_met):
    assert bar([result(precision=0.4, best_precision_at_flagged=best)], "flagged").is_met is is_met


def test_the_loss_of_a_confident_network_is_not_rounded_to_zero():
    np.testing.assert_allclose(scores.losses(np.array([[50.0, 0]]), np.array([0])), np.exp(-50))


def test_the_loss_of_a_confidently_wrong_network_is_finite():
    np.testing.assert_allclose(scores.losses(np.array([[550.0, 0]]), np.array([1])), [550])


def test_a_margin_is_the_best_other_logit_less_that_of_the_label():
    np.testing.assert_allclose(scores.margins(np.array([[1.0, 5, 3]]), np.array([2])), [2])


def test_neighbours_disagree_where_the_label_is_that_of_another_group():
    features = np.array([[1, 0], [1, 0.1], [1, 0.2], [0, 1], [0.1, 1], [0.2, 1]])
    found = scores.neighbor_disagreement(features, np.array([0, 0, 1, 1, 1, 1]), num_neighbors=2)
    np.testing.assert_allclose(found, [0.5, 0.5, 1, 0, 0, 0])


def summary(*results, with_ours=True):
    shared = {"num_test": 50, "training": {"train_accuracy": 0.9, "test_accuracy": 0.8}}
    count = {"count": 4, "calibrated": 5, "flagged": 4, "precision": 1.0, "recall": 0.4}
    counts = {"cleanlab in sample": count, "cleanlab out of fold": count}
    whole = [made | shared | {"counts": counts} for made in results]
    if not with_ours:
        whole = [{key: value for key, value in made.items() if key != "label_issues"} for made in whole]
    return tables.to_markdown(whole, {"command": "bench", "created": "today"})


def test_the_summary_has_a_row_for_every_setting():
    text = summary(result("first"), result("second", num_wrong=0, status="none", low=None))
    assert all(f"| {name} | 100 / 50 |" in text for name in ("first", "second"))


def test_the_summary_says_which_demands_are_met():
    text = summary(result(), result("poor", estimate=30))
    assert "| no count on a clean set | 0 of 0 | met |" in text
    assert "50% within (1 of 2) | **missed** |" in text


def test_the_summary_of_baselines_alone_has_no_demands():
    text = summary(result(), with_ours=False)
    assert "Demands" not in text
    assert "| loss |" in text


def test_the_summary_compares_cleanlab_s_count_with_the_truth():
    assert "| cleanlab out of fold, calibrated | 1 | 1.000 | 0.000 | 0.000 |" in summary(
        result(), with_ours=False
    )


def test_settings_have_names_of_their_own():
    names = [setting.name for setting in settings.SETTINGS]
    assert len(set(names)) == len(names)


def test_there_are_forty_settings_on_ten_data_sets_with_three_kinds_of_noise():
    judged = [setting for setting in settings.SETTINGS if not setting.is_timed_only]
    assert len(judged) >= 40
    assert len({setting.data for setting in judged}) >= 10
    assert {*NOISES, "none"} <= {setting.noise for setting in judged}
