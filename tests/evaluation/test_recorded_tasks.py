"""Questions that repeat a recorded training: against the training itself, by hand."""

import functools
import pathlib

import numpy as np
import pytest
import scipy.stats

from deel_dualview import TracIn, UnrolledInfluenceCalculator
from deel_dualview.calculators.method_specs import resolve
from deel_dualview.evaluation import Recipe, benchmark, load_images, recorded_tasks, runner
from deel_dualview.evaluation.method_run import MethodRun, draw_tests
from deel_dualview.evaluation.recorded_models import (
    TrainingRetrainer,
    draw_left_out,
    recorded_case,
    recorded_subject,
)

NUM_TEST, NUM_SUBSETS, NUM_REMOVED = 6, 8, 10
RECIPE = Recipe("mlp", epochs=3, batch_size=100, learning_rate=0.02, is_decaying=True, momentum=0.9)
METHODS = {"unrolled": UnrolledInfluenceCalculator, "random": "random"}
TASKS = ["leave-few-out", "remove-proponents", "weight-steps"]


@pytest.fixture(scope="module", autouse=True)
def few_subsets():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recorded_tasks, "NUM_SUBSETS", NUM_SUBSETS)
        yield


def run(output, methods=METHODS, tasks=TASKS):
    return benchmark(
        "digits", methods, tasks, output=output, num_test=NUM_TEST, recipe=RECIPE, progress=False
    )


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("recorded")


@pytest.fixture(scope="module")
def finished(output):
    return run(output)


@pytest.fixture(scope="module")
def subject():
    return recorded_subject(recorded_case("digits", RECIPE), 0, directory=pathlib.Path())


@pytest.fixture(scope="module")
def own(subject):
    """A run of unrolled differentiation, its queries and their values (m, n)."""
    tests = draw_tests(len(load_images("digits").test_labels), 0)
    spec = resolve(UnrolledInfluenceCalculator)
    found = MethodRun(spec, subject, load_images("digits"), tests, NUM_TEST, pathlib.Path(), progress=False)
    queries = found.queries()
    return found, queries, np.concatenate([values for _, values in found.values(queries)])


def log_probabilities(subject, queries, weights):
    """By the softmax in float64, from the training alone."""
    training = subject.training
    logits = training.outputs(queries.images, training.retrain(weights)).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.log(exponentials / exponentials.sum(axis=1, keepdims=True))


def weights_at(subject, positions, weight):
    return np.where(np.isin(np.arange(1_000), positions), weight, 1.0)


def rises(subject, queries, chosen, weight):
    """The rise of each query's loss with this weight on examples of its own, and whether the prediction flips."""
    rows, predictions = np.arange(queries.size), queries.predictions
    before = log_probabilities(subject, queries, np.ones(1_000))[rows, predictions]
    after = [
        log_probabilities(subject, queries, weights_at(subject, one, weight))[row]
        for row, one in enumerate(chosen)
    ]
    changed = np.array([one[label] for one, label in zip(after, predictions, strict=True)])
    return before - changed, np.array([one.argmax() for one in after]) != predictions


def metric(found, method, name):
    [measured] = [c.metrics[name] for c in found.cells if c.identity.method == method and name in c.metrics]
    return measured


def test_no_method_fails(finished):
    assert finished.failed == []


def test_the_exact_derivative_predicts_what_leaving_examples_out_does_and_random_numbers_do_not(finished):
    for percent in (1, 5):
        assert metric(finished, "unrolled", f"lds-without-{percent}")["value"] > 0.9
        assert abs(metric(finished, "random", f"lds-without-{percent}")["value"]) < 0.5


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_leave_few_out_is_the_rank_correlation_with_trainings_without_each_subset(
    finished, subject, own, share
):
    _, queries, values = own
    left_out = [draw_left_out(1_000, share, 0, number) for number in range(NUM_SUBSETS)]
    outputs = [
        log_probabilities(subject, queries, weights_at(subject, one, 0))[
            np.arange(NUM_TEST), queries.predictions
        ]
        for one in left_out
    ]
    sums = [-values[:, one].sum(axis=1) for one in left_out]
    scores = [
        scipy.stats.spearmanr(predicted, actual).statistic
        for predicted, actual in zip(np.transpose(sums), np.transpose(outputs), strict=True)
    ]
    assert metric(finished, "unrolled", f"lds-without-{share:.0%}".rstrip("%"))["value"] == pytest.approx(
        np.mean(scores)
    )


@pytest.mark.parametrize(("state", "weight"), [("removed", 0.0), ("halved", 0.5)])
def test_proponents_are_those_of_positive_influence_and_train_again_at_their_weight(
    finished, subject, own, state, weight
):
    _, queries, values = own
    order = np.argsort(-values, axis=1, kind="stable")[:, :NUM_REMOVED]
    chosen = [first[row[first] > 0] for first, row in zip(order, values, strict=True)]
    actual, flips = rises(subject, queries, chosen, weight)
    predicted = [(1 - weight) * row[one].sum() for one, row in zip(chosen, values, strict=True)]
    expected = {
        "rise": actual.mean(),
        "flips": flips.mean(),
        "predicted": scipy.stats.spearmanr(predicted, actual).statistic,
    }
    for name, value in expected.items():
        assert metric(finished, "unrolled", f"{name}-{state}")["value"] == pytest.approx(value, abs=1e-4)
    assert metric(finished, "unrolled", f"rise-{state}")["value"] > 2 * abs(
        metric(finished, "random", f"rise-{state}")["value"]
    )


def test_references_are_the_most_similar_and_random_examples(finished, subject, own):
    found, queries, _ = own
    features = found.model.features(subject.train.unbatch().batch(1_000).get_single_element()[0]).numpy()
    own_features = found.model.features(queries.images).numpy()
    cosines = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (own_features, features)]
    signs = np.where(queries.predictions[:, None] == subject.original_labels, 1, -1)
    nearest = np.argsort(-signs * (cosines[0] @ cosines[1].T), axis=1, kind="stable")[:, :NUM_REMOVED]
    similar, _ = rises(subject, queries, nearest, 0.0)
    measured = metric(finished, "random", "rise-removed")
    assert measured["most_similar"] == pytest.approx(similar.mean(), abs=1e-4)
    assert measured["at_random"] == metric(finished, "unrolled", "rise-removed")["at_random"]
    assert abs(measured["at_random"]) < measured["most_similar"] / 2


def test_the_ceiling_is_one_as_a_repeated_training_has_the_same_bits(finished):
    assert finished.references["ceiling"] == dict.fromkeys(
        ["lds-without-1", "lds-without-5", "predicted-removed", "predicted-halved"], 1.0
    )


def test_the_ceiling_of_trainings_that_do_not_repeat_is_below_one(output, finished, monkeypatch):
    noise, exact = np.random.default_rng(0), TrainingRetrainer.log_probabilities
    monkeypatch.setattr(
        TrainingRetrainer,
        "log_probabilities",
        lambda self, kept: exact(self, kept) + noise.normal(scale=1e-2, size=(128, 10)),
    )
    again = benchmark(
        "digits",
        ["graddot"],
        ["leave-few-out"],
        output=output,
        num_test=NUM_TEST,
        recipe=RECIPE,
        progress=False,
    )
    assert metric(again, "graddot", "lds-without-1")["ceiling"] < 0.9


def test_tables_have_a_row_for_the_ceiling_and_for_each_reference(finished, output):
    rows = [line for line in finished.to_markdown().splitlines() if line.startswith("| *")]
    assert [row.split("*")[1] for row in rows] == ["ceiling", "random examples", "most similar examples"]
    assert "1.000" in rows[0]
    assert "(ceiling)" in finished.to_text()
    page = (output / "digits" / "index.html").read_text()
    assert "<em>most similar examples</em>" in page and "<em>1.000</em>" in page


def test_a_finished_benchmark_computes_nothing_and_a_lost_result_comes_out_equal(
    output, finished, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(runner, "work", lambda *_: pytest.fail("computed"))
        run(output)
    [path] = (output / "digits" / "cells" / "random").glob("leave-few-out-0.json")
    path.unlink()
    for kept in (output / "models" / "digits" / "recorded-0" / "subsets").glob("*.npy"):
        kept.unlink()
    again = run(output, {"random": "random"}, ["leave-few-out"])
    for name in ("lds-without-1", "lds-without-5"):
        assert metric(again, "random", name)["value"] == metric(finished, "random", name)["value"]


def test_checkpoints_of_a_recorded_model_are_its_epochs(subject):
    found = subject.checkpoints
    assert found.epochs == [1, 2, 3] and found.models[-1].model is subject.model
    steps = np.arange(0, 30, 10)
    expected = 0.02 * 0.5 * (1 + np.cos(np.pi * steps / 30))
    np.testing.assert_allclose(found.learning_rates, expected, rtol=1e-5)
    np.testing.assert_array_equal(
        np.concatenate([np.ravel(one) for one in found.models[0].model.get_weights()]),
        subject.training.parameters_after(10),
    )


def test_only_factories_that_take_a_training_are_given_one(subject):
    def method_of(given):
        return resolve(given).with_training(subject.training).method

    assert method_of(UnrolledInfluenceCalculator).keywords == {"training": subject.training}
    other = functools.partial(UnrolledInfluenceCalculator, training=None)
    assert method_of(other) is other
    assert method_of(TracIn) is TracIn and method_of("random") == "random"
    assert resolve(UnrolledInfluenceCalculator).with_training(None).method is UnrolledInfluenceCalculator


def test_datasets_without_a_recorded_training_need_a_recipe():
    with pytest.raises(ValueError, match=r"digits, mnist; give `recipe`.*data='cifar10'"):
        recorded_case("cifar10")
    assert recorded_case("cifar10", RECIPE).num_train == 10_000
