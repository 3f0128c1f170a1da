"""The shipped ground truth of the linear datamodelling score: models of halves."""

import dataclasses
from importlib import resources

import numpy as np
import pytest
import scipy.stats

from deel_dualview.evaluation import Subset, load_ground_truth

HALVES = ("mnist-logistic", "mnist-cnn")


@pytest.fixture(scope="module", params=HALVES)
def truth(request):
    return load_ground_truth(request.param)


def test_shapes_fit(truth):
    assert truth.subsets.shape == (100, len(truth.train_indices)) == (100, 10_000)
    assert truth.outputs.shape == (len(truth.test_indices), 100)
    assert (truth.outputs <= 0).all() and np.isfinite(truth.outputs).all()


def test_subsets_are_halves_that_the_seeds_draw_again(truth):
    assert (truth.subsets.sum(axis=1) == 5_000).all()
    for seed in (0, 99):
        drawn = Subset.draw(10_000, 5_000, seed=seed).is_member(10_000)
        np.testing.assert_array_equal(truth.subsets[seed], drawn)


def test_test_examples_differ(truth):
    assert len(np.unique(truth.test_indices)) == len(truth.test_indices)
    assert truth.test_indices.min() >= 0 and truth.test_indices.max() < 10_000


def test_the_best_linear_attribution_scores_above_random_ones(truth, rng):
    """The least-norm solution fits all subsets exactly; random values score 0 within three standard errors."""
    centred = truth.subsets - truth.subsets.mean(axis=0)
    best = np.linalg.lstsq(
        centred, (truth.outputs - truth.outputs.mean(axis=1, keepdims=True)).T.astype(np.float64), rcond=None
    )[0].T
    for values, expected, tolerance in (
        (best, 1.0, 1e-3),
        (-best, -1.0, 1e-3),
        (rng.normal(size=best.shape), 0.0, 3 / np.sqrt(len(best) * 99)),
    ):
        metric = truth.metric(num_resamples=0)
        metric.update_state(values, truth.outputs)
        assert metric.result().value == pytest.approx(expected, abs=tolerance)


def test_the_score_is_the_mean_rank_correlation(truth, rng):
    values = rng.normal(size=(3, 10_000))
    metric = truth.metric(num_resamples=0)
    metric.update_state(values, truth.outputs[:3])
    twins = [
        scipy.stats.spearmanr(truth.subsets @ row, outputs).statistic
        for row, outputs in zip(values, truth.outputs, strict=False)
    ]
    assert metric.result().value == pytest.approx(np.mean(twins))


def test_where_seeds_change_nothing_there_is_no_noise():
    assert load_ground_truth("mnist-logistic").noise_ceiling() == 1.0


def test_the_ceiling_is_the_correlation_of_two_runs_on_the_same_subsets(truth, rng):
    repeated = truth.outputs[:, :20] + rng.normal(scale=0.1, size=(len(truth.outputs), 20))
    noisy = dataclasses.replace(truth, repeated_outputs=repeated)
    twins = [
        scipy.stats.spearmanr(*rows).statistic for rows in zip(truth.outputs[:, :20], repeated, strict=True)
    ]
    assert 0 < noisy.noise_ceiling() < 1
    assert noisy.noise_ceiling() == pytest.approx(np.mean(twins))


def test_files_made_again_are_read_from_their_folder(truth, tmp_path):
    own = resources.files("deel_dualview") / "data_files"
    for name in ("mnist-halves", truth.name):
        (tmp_path / f"{name}.npz").write_bytes((own / f"{name}.npz").read_bytes())
    np.testing.assert_array_equal(load_ground_truth(truth.name, tmp_path).outputs, truth.outputs)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="mnist-logistic"):
        load_ground_truth("cifar")
