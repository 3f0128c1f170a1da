"""What metrics and the benchmark refuse, because they would score it as if nothing were wrong."""

import functools

import numpy as np
import pytest

from deel_dualview import metrics
from deel_dualview.evaluation.entrants import read_entrants
from deel_dualview.evaluation.running import benchmark

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


def _maker(factor):
    return {
        1: lambda model, train, store: (model, 1),
        2: lambda model, train, store: (model, 2),
        3: lambda model, train, store: (model, 1),
    }[factor]


def test_a_maker_that_was_changed_under_its_name_is_told_apart():
    described = [read_entrants({"own": _maker(factor)})[0].described for factor in (1, 2, 3)]
    assert described[0] == described[2] != described[1]
    partial = read_entrants({"own": functools.partial(_maker(1), store=None)})[0].described
    assert described[0] in partial


@pytest.mark.parametrize("seeds", [[], [-1], ["a"], "0", [0, 0]])
def test_seeds_are_how_many_or_which(seeds, tmp_path):
    with pytest.raises(ValueError, match="(?i)seeds"):
        benchmark("digits", ["random"], seeds=seeds, output=tmp_path)
