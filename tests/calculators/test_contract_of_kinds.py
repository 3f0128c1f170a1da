"""The promises of every calculator for every objective and kind of data, and what the network is called for."""

import copy
import functools
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from head_twins import HeadTwin
from kind_cases import DATA, NUM_TEST, NUM_TRAIN, OBJECTIVES, SAME, Kind, kind_of

from deel_dualview import (
    METHODS,
    Checkpoints,
    FeatureSimilarity,
    InfluenceModel,
    NamedMethod,
    RelativeDamping,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

SOFTMAX = "of classifiers with a softmax"
ONE_OUTPUT = "one output; use GradDot"
LAST_LAYER = "explained by methods of the last layer"
REFUSED = {
    ("sim", "sigmoids"): SOFTMAX,
    ("sim", "squared error"): SOFTMAX,
    ("sim", "squared errors, weighted"): SOFTMAX,
    ("sim", "named output, Huber"): SOFTMAX,
    ("sim", "custom loss"): SOFTMAX,
    ("trak", "sigmoids"): ONE_OUTPUT,
    ("trak", "squared errors, weighted"): ONE_OUTPUT,
    ("trak", "custom loss"): ONE_OUTPUT,
    ("dualview", "custom loss"): "take RepresenterPointL2 or GradDot",
    ("ekfac", "positions"): LAST_LAYER,
    ("ekfac-cg", "positions"): LAST_LAYER,
    ("trak", "positions"): LAST_LAYER,
    ("tracin", "positions"): LAST_LAYER,
    ("random", "positions"): LAST_LAYER,
}
# What costs most: inverses that only differ from the exact one by their algorithm, and EK-FAC (exact of one number);
# and what does not depend on the objective, but for the form of its Hessian.
ONLY = {
    "first-order-cg": ["squared errors, weighted"],
    "first-order-lissa": ["custom loss"],
    "ekfac": ["squared error", "custom loss", "binary, weighted"],
    "ekfac-cg": ["squared errors, weighted"],
    "arnoldi": ["squared errors, weighted", "positions"],
    "random": ["squared errors, weighted"],
    "leverage-corrected": ["squared errors, weighted", "custom loss", "binary, weighted", "positions"],
}
# Of one number the Huber loss is the general case of most methods.
FEW = {"squared error": ["dualview", "ekfac", "graddot", "trak", "rps-l2", "rps-lje"]}
PAIRS = [
    *(
        (method, kind)
        for kind in OBJECTIVES
        for method in FEW.get(kind, METHODS)
        if (method, kind) not in REFUSED and kind in ONLY.get(method, OBJECTIVES)
    ),
    *(("graddot", kind) for kind in DATA),
]
SETTINGS: dict[str, dict[str, Any]] = {
    "dualview": {"K": 0.3, "kernel": "linear"},
    # The system that the others solve, by EK-FAC's exact expectation: of a mean eigenvalue that is not sampled.
    "ekfac-cg": {
        "ihvp.weights": "last",
        "ihvp.damping": RelativeDamping(0.1),
        "ihvp.num_samples": None,
        "ihvp.tolerance": 1e-5,
    },
}
TWINS = {
    "first-order": HeadTwin.first_order,
    "first-order-cg": HeadTwin.first_order,
    "first-order-lissa": HeadTwin.first_order,
    "ekfac-cg": HeadTwin.first_order,
    "arnoldi": HeadTwin.first_order,
    "second-order": HeadTwin.second_order,
    "leverage-corrected": HeadTwin.leverage_corrected,
    "relatif": HeadTwin.relatif,
    "graddot": HeadTwin.graddot,
    "gradcos": HeadTwin.gradcos,
    "tracin": HeadTwin.graddot,
    "sim": HeadTwin.sim,
    "trak": HeadTwin.trak,
    "rps-lje": HeadTwin.rps_lje,
    "feature-similarity": HeadTwin.feature_similarity,
}
twin_of = functools.cache(lambda name: HeadTwin(kind_of(name)))


def make(method: str, kind: Kind, train_set: tf.data.Dataset, model: InfluenceModel | None = None) -> Any:
    model = kind.model if model is None else model
    checkpoints = Checkpoints([model], [1.0], [1]) if method == "tracin" else None
    settings = {"target": kind.target, **SETTINGS.get(method, {})}
    return NamedMethod(method, checkpoints, settings)(model, train_set)


def all_values(calculator: Any, queries: tf.data.Dataset) -> np.ndarray:
    return np.concatenate(list(calculator.estimate_influence_values_in_batches(queries)))


def num_examples(kind: Kind) -> int:
    return 0 if kind.counter is None else kind.counter.num_examples


def close(found: np.ndarray, expected: np.ndarray) -> None:
    """Compare in units of the largest value."""
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


class Found(NamedTuple):
    """What one calculator gives, computed once, and how many examples went through the network for it.

    Attributes:
        values: of the evaluated examples, without labels, shape (m, n).
        own: self-influence, shape (n,).
        counts: examples through the network at construction, for the values and for the self-influence.
    """

    method: str
    name: str
    kind: Kind
    calculator: Any
    values: np.ndarray
    own: np.ndarray
    counts: list[int]


@pytest.fixture(scope="module", params=PAIRS, ids=" of ".join)
def found(request) -> Found:
    method, name = request.param
    kind = kind_of(name)
    kind.model.prepare(next(iter(kind.train()))[0])
    counts = [num_examples(kind)]
    # The last batch is smaller than the others, and nobody knows how many there are.
    calculator = make(method, kind, kind.train().filter(lambda *element: True))
    counts.append(num_examples(kind))
    values = all_values(calculator, kind.test())
    counts.append(num_examples(kind))
    own = np.concatenate(list(calculator.compute_influence_values()))
    counts.append(num_examples(kind))
    return Found(method, name, kind, calculator, values, own, np.diff(counts).tolist())


def test_values_are_those_of_a_naive_computation_in_float64(found):
    twin = twin_of(found.name)
    if found.method in TWINS:
        close(found.values, TWINS[found.method](twin))
    elif found.method == "rps-l2":
        close(found.values, twin.rps_l2(found.calculator))
    elif found.method == "ekfac":
        expected = twin.first_order()
        assert np.corrcoef(found.values.ravel(), expected.ravel())[0, 1] > 0.95
        # The curvature of one number factors.
        close(found.values, expected if found.name == "squared error" else found.values)
    elif found.method == "dualview":
        outputs = found.calculator.surrogate_logits(found.kind.test())[np.arange(NUM_TEST), twin.explained]
        sums = found.values.sum(axis=1) + found.calculator.surrogate_bias[twin.explained]
        np.testing.assert_allclose(sums, outputs, atol=1e-5)
        assert found.calculator.surrogate.converged and not found.values[:, twin.weights == 0].any()
    else:
        assert found.method == "random"


def test_equal_examples_have_equal_influence(found):
    first, second = found.kind.rows_of_examples[list(SAME)]
    if found.method != "random":
        np.testing.assert_allclose(found.values[:, first], found.values[:, second], rtol=1e-4, atol=1e-6)


def test_the_best_are_all_values_sorted_and_ties_break_by_the_lower_index(found):
    ((values, indices),) = found.calculator.top_k_indices(found.kind.test().take(1), k=len(found.own))
    expected = found.values[: len(values)]
    rows = np.argsort(-expected, axis=1, kind="stable")
    np.testing.assert_array_equal(values, np.take_along_axis(expected, rows, 1))
    np.testing.assert_array_equal(indices, rows if found.kind.pairs is None else found.kind.pairs[rows])


def test_self_influence_is_the_influence_on_the_own_label(found):
    model = found.kind.model
    if found.method == "random" or found.method == "dualview" and model.num_outputs > 1 > model.is_classifier:
        return  # Random numbers; and labels of several numbers are no one output of a surrogate, see below.
    labelled = copy.copy(found.calculator)
    labelled.target = "label"
    values = all_values(labelled, found.kind.train().take(1))
    rows = found.kind.rows_of_examples[: len(values)]
    close(found.own[rows], values[np.arange(len(values)), rows])


def test_the_network_runs_once_over_each_set_and_not_for_self_influence(found):
    if found.kind.counter is None or found.method == "random":
        return
    built, queries, own = found.counts
    # EK-FAC makes two passes of its own. A fingerprint takes eight examples, or a batch, and no second pass.
    passes = 3 if found.method in ("ekfac", "ekfac-cg") else 1
    assert passes * NUM_TRAIN <= built < (passes + 1) * NUM_TRAIN
    # Conjugate gradients and LiSSA read the fingerprint at their first solve; another length makes another trace.
    is_late = found.method in ("first-order-cg", "first-order-lissa", "ekfac-cg") or found.kind.padded
    assert queries == NUM_TEST or is_late and queries <= NUM_TEST + 8
    assert own == 0


@pytest.mark.parametrize(("method", "name"), REFUSED, ids=map(" of ".join, REFUSED))
def test_what_a_method_cannot_do_is_refused_before_the_network_runs_and_names_the_way_out(method, name):
    kind = kind_of(name)
    before = num_examples(kind)
    with pytest.raises(ValueError, match=REFUSED[method, name]):
        make(method, kind, kind.train(), kind.again())
    assert num_examples(kind) == before


@pytest.mark.parametrize(
    ("method", "target"), [("dualview", "label"), ("graddot", "prediction"), ("rps-l2", "prediction")]
)
def test_which_of_several_numbers_must_be_said_before_the_network_runs(method, target):
    kind = kind_of("squared errors, weighted")
    calculator = make(method, kind, kind.train())
    calculator.target = target
    before = num_examples(kind)
    for explain in (calculator.top_k, calculator.top_k_indices, calculator.sparse_influence_values):
        with pytest.raises(ValueError, match="target=INDEX"):
            explain(kind.train())
    assert num_examples(kind) == before


@pytest.fixture(scope="module", params=DATA)
def similarity(request) -> tuple[Kind, FeatureSimilarity]:
    kind = kind_of(request.param)
    return kind, FeatureSimilarity(kind.model, kind.train())


def test_results_hold_the_examples_that_they_name(similarity):
    kind, calculator = similarity
    # Batches of other sizes would be padded to other lengths, and are other examples.
    (top, *_) = calculator.top_k(kind.test(), kind.train(10 if kind.padded else 5), k=4)
    rows = top.training_indices.numpy()
    given = tf.nest.flatten(kind.part(slice(NUM_TRAIN)))
    for part, expected in zip(tf.nest.flatten(top.training_samples[:2]), given, strict=True):
        gathered = part.numpy().astype(str) if part.dtype == tf.string else part.numpy()
        wanted = expected[rows][..., : gathered.shape[-1]] if kind.padded else expected[rows]
        np.testing.assert_array_equal(gathered, wanted)


def test_the_same_examples_in_another_order_are_refused(similarity):
    kind, calculator = similarity
    turned = kind._replace(arrays=tf.nest.map_structure(lambda array: array[::-1].copy(), kind.arrays))
    with pytest.raises(ValueError, match="built with"):
        calculator.top_k(kind.test(), turned.train(), k=3)


def test_batches_of_many_lengths_share_a_trace_so_that_the_network_runs_once():
    kind = kind_of("attention over padded batches")
    model, train = kind.again(), kind.train(1)
    for element in train.take(3):
        model.features(element[0])
    assert len({element[0].shape[1] for element in train}) == 6
    before = num_examples(kind)
    for element in train:
        model.features(element[0])
    # Two traces, for one length and for all, are compared with an eager call.
    assert num_examples(kind) - before <= NUM_TRAIN + 2
