"""Metrics that train again, and metrics of fidelity: twins, the perfect, the reversed and the random attributor."""

import numpy as np
import pytest
import scipy.sparse

from deel_dualview import metrics

NUM_TRAIN, NUM_TEST = 40, 12
WORTH = np.linspace(0, 1, NUM_TRAIN) ** 2  # what each training example is worth to every test example


def retrain_losses(kept):
    """A model whose loss is what the examples that were left out are worth."""
    return np.full(NUM_TEST, WORTH.sum() - WORTH[kept].sum()) + np.arange(NUM_TEST)


def fed(metric, *batch):
    metric.update_state(*batch)
    return metric.result()


class TestCurves:
    PERFECT = np.tile(WORTH, (NUM_TEST, 1))

    @pytest.mark.parametrize(("metric", "best"), [(metrics.CoreSet, min), (metrics.Pruning, max)])
    def test_the_perfect_order_is_best_the_reverse_worst_and_random_between(self, metric, best):
        generator = np.random.default_rng(0)
        perfect = fed(metric(retrain_losses), self.PERFECT).value
        reverse = fed(metric(retrain_losses), 1 - self.PERFECT).value
        random = [
            fed(metric(retrain_losses, num_resamples=0), generator.random((NUM_TEST, NUM_TRAIN))).value
            for _ in range(200)
        ]
        assert best(perfect, *random, reverse) == perfect
        assert min(perfect, reverse) < min(random) and max(random) < max(perfect, reverse)

    @pytest.mark.parametrize("metric", [metrics.CoreSet, metrics.Pruning])
    def test_a_random_order_leaves_as_much_as_its_share_is_worth(self, metric):
        generator = np.random.default_rng(1)
        values = [
            fed(metric(retrain_losses, [0.3], num_resamples=0), generator.random((1, NUM_TRAIN))).value
            for _ in range(400)
        ]
        share_lost = 0.7 if metric is metrics.CoreSet else 0.3
        expected = share_lost * WORTH.sum() + np.arange(NUM_TEST).mean()
        assert np.mean(values) == pytest.approx(expected, abs=4 * np.std(values) / 20)

    @pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
    def test_the_result_is_the_weighted_mean_of_the_twin(self, kind):
        values = np.random.default_rng(2).normal(size=(NUM_TEST, NUM_TRAIN))
        order = sorted(range(NUM_TRAIN), key=lambda i: -np.abs(values[:, i]).sum())
        losses = {share: retrain_losses(order[: round(share * NUM_TRAIN)]).mean() for share in (0.1, 0.5)}
        metric = metrics.CoreSet(retrain_losses, (0.1, 0.5))
        metric.update_state(kind(values[:5]))
        metric.update_state(kind(values[5:]))
        result = metric.result()
        assert result.value == pytest.approx((0.9 * losses[0.1] + 0.5 * losses[0.5]) / 1.4)
        assert result.num_examples == NUM_TEST and result.interval[0] < result.value < result.interval[1]
        assert metric.at(0.1) == pytest.approx(losses[0.1])

    def test_each_share_trains_once_on_increasing_positions(self):
        asked = []

        def retrain(kept):
            asked.append(kept)
            return retrain_losses(kept)

        metric = metrics.Pruning(retrain, (0.25, 0.5))
        metric.update_state(self.PERFECT)
        metric.result(), metric.result()
        assert [len(kept) for kept in asked] == [30, 20]
        np.testing.assert_array_equal(asked[1], np.arange(20))

    def test_bad_input_is_refused(self):
        with pytest.raises(ValueError, match="between 0 and 1"):
            metrics.CoreSet(retrain_losses, [1.0])
        with pytest.raises(ValueError, match="no example"):
            metrics.CoreSet(retrain_losses).result()
        metric = metrics.CoreSet(lambda kept: np.array([np.nan, 1.0]), [0.5])
        with pytest.raises(ValueError, match=r"finite loss.*num_not_finite=1"):
            fed(metric, self.PERFECT)
        with pytest.raises(ValueError, match="must have one entry"):
            metric.update_state(self.PERFECT[:, 1:])


class TestBrittleness:
    """A nearest-class world: test example t is of class 1 while any of its two supporters stays."""

    SUPPORTERS = np.arange(2 * NUM_TEST).reshape(NUM_TEST, 2)

    def retrain(self, kept):
        return np.isin(self.SUPPORTERS, kept).any(axis=1).astype(int)

    def values(self, sign):
        matrix = np.zeros((NUM_TEST, NUM_TRAIN))
        np.put_along_axis(matrix, self.SUPPORTERS, sign, axis=1)
        return matrix

    @pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0)])
    def test_the_perfect_attributor_flips_all_and_the_reversed_none(self, sign, expected):
        ones = np.ones(NUM_TEST, int)
        assert fed(metrics.Brittleness(self.retrain, 2), self.values(sign), ones).value == expected

    def test_random_attributions_flip_as_often_as_both_supporters_are_drawn(self):
        values = np.random.default_rng(3).random((NUM_TEST, NUM_TRAIN))
        metric = metrics.Brittleness(self.retrain, 20, num_resamples=0)
        results = []
        for _ in range(30):
            values = np.random.default_rng(len(results)).random((NUM_TEST, NUM_TRAIN))
            metric.reset_state()
            results.append(fed(metric, values, np.ones(NUM_TEST, int)).value)
        assert np.mean(results) == pytest.approx(20 * 19 / (40 * 39), abs=0.09)

    def test_batches_keep_their_places(self):
        values, ones = self.values(1.0), np.ones(NUM_TEST, int)
        values[3], values[8] = 0, 0
        metric = metrics.Brittleness(self.retrain, 2)
        for rows in (slice(0, 5), slice(5, 6), slice(6, None)):
            metric.update_state(values[rows], ones[rows])
        expected = np.ones(NUM_TEST)
        expected[[3, 8]] = 0
        np.testing.assert_array_equal(metric.scores, expected)

    def test_a_model_of_fewer_test_examples_is_refused(self):
        metric = metrics.Brittleness(lambda kept: np.ones(3, int), 2)
        with pytest.raises(ValueError, match="one class a test example"):
            metric.update_state(self.values(1.0), np.ones(NUM_TEST, int))


class TestFidelity:
    LOGITS = np.random.default_rng(4).normal(size=(NUM_TEST, 5))

    def test_the_model_itself_is_perfect_and_its_opposite_is_not(self):
        metric = metrics.SurrogateFidelity()
        assert fed(metric, 3 * self.LOGITS + 1, self.LOGITS).value == 1.0
        measures = metric.matthews_correlation, metric.logit_cosine, metric.kendall_tau
        np.testing.assert_allclose(measures, 1.0)
        metric.reset_state()
        assert fed(metric, -self.LOGITS, self.LOGITS).value == 0.0
        np.testing.assert_allclose([metric.logit_cosine, metric.kendall_tau], -1.0)

    def test_random_predictions_agree_by_chance(self):
        generator = np.random.default_rng(5)
        ours, theirs = generator.normal(size=(2, 3000, 5))
        metric = metrics.SurrogateFidelity(num_resamples=0)
        assert fed(metric, ours, theirs).value == pytest.approx(0.2, abs=0.03)
        assert abs(metric.matthews_correlation) < 0.05 and abs(metric.kendall_tau) < 0.05

    def test_logits_of_other_classes_are_refused(self):
        with pytest.raises(ValueError, match="same examples and classes"):
            metrics.SurrogateFidelity().update_state(self.LOGITS, self.LOGITS[:, 1:])


class TestCompleteness:
    VALUES = np.random.default_rng(6).normal(size=(NUM_TEST, NUM_TRAIN))

    def test_values_that_add_up_are_complete(self):
        logits = self.VALUES.sum(axis=1)
        assert fed(metrics.Completeness(), self.VALUES, logits).value == pytest.approx(0, abs=1e-12)
        assert fed(metrics.Completeness(), -self.VALUES, logits).value > 1

    def test_the_error_is_in_units_of_the_deviation_whatever_the_batches(self):
        logits = np.random.default_rng(7).normal(size=NUM_TEST)
        expected = np.mean(np.abs(self.VALUES.sum(axis=1) - logits)) / np.std(logits)
        metric = metrics.Completeness()
        metric.update_state(self.VALUES[:4], logits[:4])
        metric.update_state(scipy.sparse.csr_array(self.VALUES[4:]), logits[4:])
        assert metric.result().value == pytest.approx(expected)

    def test_nothing_given_is_refused(self):
        with pytest.raises(ValueError, match="no example"):
            metrics.Completeness().result()


class TestTopK:
    """The first proponents alone, as `top_k_indices` gives them, score as the whole matrix does."""

    VALUES = np.random.default_rng(8).normal(size=(NUM_TEST, NUM_TRAIN))
    FIRST = np.argsort(-VALUES, axis=1)[:, :5]
    TRAINING, TEST = np.arange(NUM_TRAIN) % 3, np.arange(NUM_TEST) % 3

    @pytest.mark.parametrize(
        "metric", [lambda: metrics.TopKClass(3), metrics.IdenticalClass, metrics.IdenticalSubclass]
    )
    def test_class_metrics(self, metric):
        first = metric()
        first.update_top_k(self.FIRST, self.TRAINING, self.TEST)
        assert first.result() == fed(metric(), self.VALUES, self.TRAINING, self.TEST)

    def test_cardinality(self):
        first = metrics.TopKCardinality(4)
        first.update_top_k(self.FIRST)
        assert first.result() == fed(metrics.TopKCardinality(4), self.VALUES)

    @pytest.mark.parametrize(
        ("indices", "message"),
        [(FIRST[:, :2], "positions of 3"), (FIRST + 50, r"0\.\.39"), (FIRST * 1.0, "positions of 3")],
    )
    def test_other_than_positions_are_refused(self, indices, message):
        with pytest.raises(ValueError, match=message):
            metrics.TopKClass(3).update_top_k(indices, self.TRAINING, self.TEST)
