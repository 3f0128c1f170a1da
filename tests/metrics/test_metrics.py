"""Metrics against naive twins, the perfect, the reversed and the random attributor."""

import numpy as np
import pytest
import scipy.sparse
import scipy.stats
import sklearn.metrics
import tensorflow as tf

from deel_dualview import metrics

NUM_TEST, NUM_TRAIN, NUM_CLASSES = 40, 60, 5
KINDS = {
    "array": np.asarray,
    "float32": lambda values: values.astype(np.float32),
    "tensor": tf.constant,
    "csr": scipy.sparse.csr_array,
    "coo": scipy.sparse.coo_array,
}


@pytest.fixture(scope="module")
def case():
    """Influence values with zeros and ties, and classes of both sides."""
    generator = np.random.default_rng(0)
    values = np.round(generator.normal(size=(NUM_TEST, NUM_TRAIN)), 1)
    values[generator.random(values.shape) < 0.4] = 0.0
    return values, generator.integers(0, NUM_CLASSES, NUM_TRAIN), generator.integers(0, NUM_CLASSES, NUM_TEST)


def naive_top(row, k):
    return sorted(range(len(row)), key=lambda i: (-row[i], i))[:k]


def perfect(training, test):
    return (training[None, :] == test[:, None]).astype(float)


def fed(metric, *batch):
    metric.update_state(*batch)
    return metric.result()


class TestTopMatches:
    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_the_k_first_proponents_are_compared_ties_by_position(self, case, kind):
        values, training, test = case
        expected = np.mean(
            [
                [training[i] == c for i in naive_top(row, 3)]
                for row, c in zip(values.astype(np.float32), test, strict=True)
            ]
        )
        assert fed(metrics.TopKClass(3), kind(values), training, test).value == pytest.approx(expected)

    @pytest.mark.parametrize("metric", [metrics.IdenticalClass, metrics.IdenticalSubclass, metrics.TopKClass])
    def test_the_perfect_attributor_scores_one_and_the_reversed_nothing(self, metric):
        training, test = np.arange(50) % 5, np.arange(20) % 5
        assert fed(metric(), perfect(training, test), training, test).value == 1.0
        assert fed(metric(), -perfect(training, test), training, test).value == 0.0

    @pytest.mark.parametrize("metric", [metrics.IdenticalClass, metrics.IdenticalSubclass, metrics.TopKClass])
    def test_random_attributions_score_one_over_the_number_of_classes(self, metric):
        generator = np.random.default_rng(1)
        training, test = np.arange(200) % 5, np.arange(2000) % 5
        value = fed(metric(num_resamples=0), generator.normal(size=(2000, 200)), training, test).value
        assert value == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 2000))

    def test_batches_add_up(self, case):
        values, training, test = case
        whole, parts = metrics.IdenticalClass(), metrics.IdenticalClass()
        for rows in (slice(0, 7), slice(7, 8), slice(8, None)):
            parts.update_state(values[rows], training, test[rows])
        assert parts.result() == fed(whole, values, training, test)

    def test_a_reset_forgets(self, case):
        metric = metrics.IdenticalClass()
        metric.update_state(*case)
        metric.reset_state()
        with pytest.raises(ValueError, match="no example"):
            metric.result()

    def test_the_interval_is_that_of_the_binomial_share(self):
        """A mean of 0 / 1 scores: the bootstrap interval is near the normal one."""
        training, test = np.array([0, 1]), np.zeros(400, int)
        values = np.where(np.arange(400)[:, None] < 300, [[1.0, 0.0]], [[0.0, 1.0]])
        result = fed(metrics.IdenticalClass(), values, training, test)
        half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
        assert (result.value, result.num_examples) == (0.75, 400)
        np.testing.assert_allclose(result.interval, (0.75 - half, 0.75 + half), atol=0.01)

    def test_no_resamples_leave_the_interval_out(self, case):
        assert np.isnan(fed(metrics.IdenticalClass(num_resamples=0), *case).interval).all()

    def test_blocks_of_rows_change_nothing(self, case, monkeypatch):
        expected = fed(metrics.TopKClass(2), *case)
        monkeypatch.setattr("deel_dualview.metrics.base._BLOCK_BYTES", 8 * NUM_TRAIN * 3)
        assert fed(metrics.TopKClass(2), *case) == expected


class TestLabelPoisoning:
    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_the_global_value_sums_shares_of_the_largest(self, case, kind):
        values = case[0]
        is_poisoned = np.arange(NUM_TRAIN) % 3 == 0
        metric = metrics.LabelPoisoning(is_poisoned, num_resamples=0)
        metric.update_state(kind(values[:9]))
        metric.update_state(kind(values[9:]))
        expected = sum(np.abs(row) / np.abs(row).max() for row in values)
        np.testing.assert_allclose(metric.values, expected, rtol=1e-6)

    def test_the_area_is_the_share_of_pairs_in_order(self):
        generator = np.random.default_rng(2)
        is_poisoned, values = generator.random(30) < 0.3, generator.integers(0, 8, 30).astype(float)
        pairs = [(a > b) + 0.5 * (a == b) for a in values[is_poisoned] for b in values[~is_poisoned]]
        result = fed(metrics.LabelErrorDetection(is_poisoned), values)
        assert result.value == pytest.approx(np.mean(pairs))
        assert result.interval[0] < result.value < result.interval[1] and result.num_examples == 30

    def test_the_interval_resamples_training_examples(self):
        """A twin with a loop: ties, resamples of one kind alone, and all."""
        generator = np.random.default_rng(11)
        is_poisoned, values = generator.random(7) < 0.3, generator.integers(0, 3, 7).astype(float)

        def area(rows):
            first, second = values[rows][is_poisoned[rows]], values[rows][~is_poisoned[rows]]
            pairs = [(a > b) + 0.5 * (a == b) for a in first for b in second]
            return np.mean(pairs) if pairs else 0.5

        drawn = np.random.default_rng(0)
        resamples = [area(drawn.choice(7, 7)) for _ in range(4000)]
        metric = metrics.LabelErrorDetection(is_poisoned, num_resamples=4000)
        np.testing.assert_allclose(
            fed(metric, values).interval, np.percentile(resamples, [2.5, 97.5]), atol=0.03
        )

    @pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)])
    def test_perfect_reversed_and_constant_values(self, sign, expected):
        is_poisoned = np.arange(20) < 5
        metric = metrics.LabelErrorDetection(is_poisoned, num_resamples=0)
        assert fed(metric, sign * is_poisoned).value == expected

    def test_a_test_example_without_any_influence_adds_nothing(self):
        metric = metrics.LabelPoisoning([True, False, False])
        metric.update_state([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0]])
        np.testing.assert_allclose(metric.values, [0.25, 0.5, 1.0])

    def test_the_curve_lies_in_its_parallelogram_and_gives_the_recall(self):
        values = np.random.default_rng(3).normal(size=40)
        is_poisoned = np.random.default_rng(4).random(40) < 0.25
        metric = metrics.LabelErrorDetection(is_poisoned)
        metric.update_state(values)
        curve = metric.curve()
        for share, found in zip(curve.inspected, curve.found, strict=True):
            chosen = np.argsort(-values)[: round(share * 40)]
            assert found == pytest.approx(is_poisoned[chosen].sum() / is_poisoned.sum())
        assert (curve.worst <= curve.found + 1e-12).all() and (curve.found <= curve.best + 1e-12).all()
        assert metric.recall_at(0.2) == curve.found[8]

    def test_a_share_that_is_a_whole_number_of_examples_is_not_rounded_down(self):
        """0.29 * 100 is 28.999999999999996."""
        metric = metrics.LabelErrorDetection(np.arange(100) == 28)
        metric.update_state(-np.arange(100.0))
        assert (metric.recall_at(0.28), metric.recall_at(0.29)) == (0.0, 1.0)

    def test_values_of_another_training_set_are_refused(self):
        with pytest.raises(ValueError, match=r"shape \(3,\)"):
            fed(metrics.LabelErrorDetection([True, False, False]), [1.0, 2.0])

    def test_one_kind_of_label_alone_is_refused(self):
        with pytest.raises(ValueError, match="some of either kind"):
            metrics.LabelPoisoning([False, False])


class TestDomainMismatch:
    IS_MARKED = np.arange(10) < 3

    def test_only_misled_test_examples_count(self):
        """Rows: misled; of the marked class; predicted otherwise; misled and not explained by a mark."""
        values = np.zeros((4, 10))
        values[[0, 1, 2, 3], [2, 2, 2, 7]] = 1.0
        metric = metrics.DomainMismatch(self.IS_MARKED, 1)
        result = fed(metric, values, [0, 1, 0, 2], [1, 1, 0, 1])
        assert (result.value, result.num_examples, metric.num_seen) == (0.5, 2, 4)

    @pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0)])
    def test_perfect_and_reversed_attributors(self, sign, expected):
        values = np.tile(sign * self.IS_MARKED, (5, 1)).astype(float)
        metric = metrics.DomainMismatch(self.IS_MARKED, 1)
        assert fed(metric, values, np.zeros(5), np.ones(5)).value == expected

    def test_random_attributions_score_the_share_of_marked_examples(self):
        values = np.random.default_rng(5).normal(size=(4000, 10))
        metric = metrics.DomainMismatch(self.IS_MARKED, 1, num_resamples=0)
        assert fed(metric, values, np.zeros(4000), np.ones(4000)).value == pytest.approx(0.3, abs=0.03)

    def test_average_precision_of_the_perfect_attributor_is_one(self):
        metric = metrics.DomainMismatch(self.IS_MARKED, 1)
        metric.update_state(self.IS_MARKED[None].astype(float), [0], [1])
        assert metric.average_precision == 1.0

    def test_average_precision_is_that_of_scikit_learn_with_ties(self):
        values = np.random.default_rng(12).integers(-3, 4, (20, 10)).astype(float)
        metric = metrics.DomainMismatch(self.IS_MARKED, 1)
        metric.update_state(values, np.zeros(20), np.ones(20))
        expected = [sklearn.metrics.average_precision_score(self.IS_MARKED, row) for row in values]
        assert metric.average_precision == pytest.approx(np.mean(expected))

    def test_nothing_left_says_how_many_of_each_kind_came(self):
        with pytest.raises(ValueError, match="seen=3, of that class=1, predicted otherwise=2"):
            fed(metrics.DomainMismatch(self.IS_MARKED, 1), np.ones((3, 10)), [1, 0, 0], [1, 0, 2])


class TestAgreement:
    def test_the_datamodelling_score_is_the_mean_rank_correlation(self, case):
        generator = np.random.default_rng(6)
        values = generator.normal(size=case[0].shape)  # sums of rounded values would tie, or nearly
        subsets, outputs = generator.random((12, NUM_TRAIN)) < 0.5, generator.normal(size=(NUM_TEST, 12))
        expected = [
            scipy.stats.spearmanr([row[chosen].sum() for chosen in subsets], target).statistic
            for row, target in zip(values, outputs, strict=True)
        ]
        result = fed(metrics.LinearDatamodelingScore(subsets), values, outputs)
        assert result.value == pytest.approx(np.mean(expected))

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_an_additive_model_is_scored_perfectly_or_perfectly_wrong(self, case, sign):
        subsets = np.random.default_rng(7).random((12, NUM_TRAIN)) < 0.5
        values = np.random.default_rng(6).normal(
            size=case[0].shape
        )  # sums of rounded values would nearly tie
        outputs = values @ subsets.T
        metric = metrics.LinearDatamodelingScore(subsets)
        assert fed(metric, sign * values, outputs).value == pytest.approx(sign)
        assert metric.noise_ceiling(outputs, outputs) == pytest.approx(1.0)

    def test_a_perfect_score_is_not_above_one(self, case):
        """Of 17 ranks, rounding takes the correlation of equal rows to 1 + 2e-16."""
        subsets = np.random.default_rng(7).random((17, NUM_TRAIN)) < 0.5
        metric = metrics.LinearDatamodelingScore(subsets)
        metric.update_state(case[0], case[0] @ subsets.T)
        assert metric.scores.max() <= 1.0

    def test_random_and_constant_attributions_score_nothing(self, case):
        generator = np.random.default_rng(8)
        subsets, outputs = generator.random((50, NUM_TRAIN)) < 0.5, generator.normal(size=(NUM_TEST, 50))
        assert abs(fed(metrics.LinearDatamodelingScore(subsets), case[0], outputs).value) < 0.1
        constant = np.zeros((NUM_TEST, NUM_TRAIN))
        assert fed(metrics.LinearDatamodelingScore(subsets), constant, outputs).value == 0.0

    def test_leave_one_out_is_the_mean_correlation(self, case):
        changes = np.random.default_rng(9).normal(size=case[0].shape)
        expected = [np.corrcoef(*pair)[0, 1] for pair in zip(case[0], changes, strict=True)]
        assert fed(metrics.LeaveOneOut(), case[0], changes).value == pytest.approx(np.mean(expected))

    @pytest.mark.parametrize("scale", [3.0, -2.0])
    def test_leave_one_out_ignores_scale_but_not_sign(self, case, scale):
        assert fed(metrics.LeaveOneOut(), case[0], scale * case[0]).value == pytest.approx(np.sign(scale))

    def test_randomisation_compares_ranks(self, case):
        other = np.random.default_rng(10).normal(size=case[0].shape)
        expected = [scipy.stats.spearmanr(*pair).statistic for pair in zip(case[0], other, strict=True)]
        assert fed(metrics.ModelRandomisation(), case[0], other).value == pytest.approx(np.mean(expected))
        assert fed(metrics.ModelRandomisation(), other, np.exp(other)).value == pytest.approx(1.0)

    def test_outputs_of_another_shape_or_not_finite_are_refused(self, case):
        metric = metrics.LinearDatamodelingScore(np.eye(NUM_TRAIN)[:4])
        with pytest.raises(ValueError, match=r"shape \(40, 4\)"):
            metric.update_state(case[0], np.ones((NUM_TEST, 5)))
        with pytest.raises(ValueError, match=r"finite.*\[3\]"):
            metric.update_state(case[0], np.where(np.arange(NUM_TEST)[:, None] == 3, np.nan, np.ones((1, 4))))


class TestConcentration:
    def test_cardinality_counts_distinct_examples(self, case):
        named = {i for row in case[0].astype(np.float32) for i in naive_top(row, 2)}
        expected = len(named) / (2 * NUM_TEST)
        assert fed(metrics.TopKCardinality(2), case[0]).value == pytest.approx(expected)

    def test_own_answers_score_one_and_one_answer_for_all_the_least(self):
        assert fed(metrics.TopKCardinality(1), np.eye(30)).value == 1.0
        assert fed(metrics.TopKCardinality(1), np.tile(np.arange(30.0), (30, 1))).value == pytest.approx(
            1 / 30
        )

    def test_the_interval_of_cardinality_holds_its_value(self, case):
        low, high = fed(metrics.TopKCardinality(2), case[0]).interval
        value = fed(metrics.TopKCardinality(2), case[0]).value
        assert 0 < low < value < high < 1
        narrower = fed(metrics.TopKCardinality(2, confidence_level=0.5), case[0]).interval
        assert (value - narrower[0]) / (value - low) == pytest.approx(0.6745 / 1.96, abs=1e-3)

    def test_sparsity_of_two_training_sets_is_refused(self, case):
        metric = metrics.Sparsity()
        metric.update_state(case[0])
        with pytest.raises(ValueError, match="of one training set"):
            metric.update_state(case[0][:, 1:])

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_sparsity_is_the_share_of_other_than_zero(self, case, kind):
        expected = np.count_nonzero(case[0]) / case[0].size
        assert fed(metrics.Sparsity(), kind(case[0])).value == pytest.approx(expected)

    def test_equal_shares_count_their_examples(self):
        metric = metrics.Sparsity()
        metric.update_state(np.repeat([[1.0, -1.0, 0.0]], [20, 20, 60], axis=1))
        assert metric.effective_number == pytest.approx(40.0)
        assert metric.num_for_mass == 36.0


class TestBadInput:
    def test_values_that_are_not_finite_name_their_rows(self, case):
        values = case[0].copy()
        values[[3, 8], 0] = np.nan
        with pytest.raises(ValueError, match=r"finite.*\[3, 8\]"):
            metrics.IdenticalClass().update_state(values, *case[1:])

    @pytest.mark.parametrize("values", [np.ones(4), np.ones((2, 2, 2))])
    def test_values_that_are_no_matrix_are_refused(self, values):
        with pytest.raises(ValueError, match="matrix"):
            metrics.Sparsity().update_state(values)

    def test_labels_of_another_training_set_are_refused(self, case):
        with pytest.raises(ValueError, match="training_labels"):
            metrics.IdenticalClass().update_state(case[0], case[1][:-1], case[2])

    def test_a_confidence_level_of_one_is_refused(self):
        with pytest.raises(ValueError, match="between 0 and 1"):
            metrics.Sparsity(confidence_level=1.0)
