"""Methods under evaluation: names with settings, and what makes calculators."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import (
    DualSVMSolver,
    DualView,
    GaussianProjection,
    GradCos,
    InfluenceModel,
    NamedMethod,
    RelativeDamping,
)
from deel_dualview.calculators.method_specs import MethodSpec, resolve, resolve_all, split_names
from deel_dualview.calculators.random import RandomInfluence
from deel_dualview.calculators.settings import read_value


@pytest.fixture(scope="module")
def problem():
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    inputs, labels = generator.normal(size=(40, 4)).astype("float32"), np.arange(40) % 3
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(5, "tanh"), keras.layers.Dense(3)])
    train = tf.data.Dataset.from_tensor_slices((inputs, labels)).batch(8)
    return InfluenceModel(model), train, inputs[:6]


def made(name, problem):
    [spec] = resolve_all([name])
    return spec.build(problem[0], problem[1], None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("linear", "linear"),
        ("gauss-newton", "gauss-newton"),
        ("None", None),
        ("True", True),
        ("['a','b']", ["a", "b"]),
        ("RelativeDamping(0.5)", RelativeDamping(0.5)),
        ("DualSVMSolver(tolerance=1e-6)", DualSVMSolver(tolerance=1e-6)),
    ],
)
def test_a_setting_is_a_literal_a_word_or_a_part(text, value):
    assert read_value(text) == value


@pytest.mark.parametrize(
    "text", ["open('x')", "GaussianProjection(size=f())", "GaussianProjection(1, 2, 3, 4)"]
)
def test_nothing_else_is_called(text):
    with pytest.raises(ValueError, match="A setting is a literal"):
        read_value(text)


def test_settings_reach_the_calculator_and_its_inverse(problem):
    calculator = made("dualview?K=0.5&kernel=linear", problem)
    assert (calculator.K, calculator.kernel) == (0.5, "linear")
    calculator = made("first-order?ihvp.damping=RelativeDamping(0.5)", problem)
    assert calculator.ihvp._damping == RelativeDamping(0.5)
    assert made("relatif?ihvp.damping=0.25", problem).ihvp.damping == 0.25
    assert made("sim?projection=GaussianProjection(16)", problem).num_train == 40


def test_commas_inside_of_parentheses_are_kept():
    assert split_names("a, sim?projection=GaussianProjection(8, 1),b,") == [
        "a",
        "sim?projection=GaussianProjection(8, 1)",
        "b",
    ]


@pytest.mark.parametrize(
    "name", ["random?damping=1", "dualview?ihvp.damping=1", "first-order?ihvp.dampnig=1"]
)
def test_settings_that_a_method_does_not_have_are_refused(name):
    with pytest.raises(ValueError, match=r"settings"):
        resolve_all([name])


def test_settings_of_the_inverse_are_told_too():
    with pytest.raises(
        ValueError, match=r"first-order has the settings ihvp\.weights, .*ihvp\.damping.*'damping'"
    ):
        resolve_all(["first-order?damping=0.1"])


@pytest.mark.parametrize(
    "name",
    [
        "dualview?K=1&bias=True&kernel=cosine&solver=DualSVMSolver(1e-3, 100)",
        "dualview?K=None",
        "rps-l2?lambda_regularization=1",
        "first-order?ihvp.damping=RelativeDamping(0.5)&ihvp.weights=['logits']",
        "ekfac?ihvp.num_samples=100&ihvp.weights=all",
        "gradcos?weights=('features', 'logits')&projection=FactoredProjection(16)&normalize=train",
        "random?seed=3",
        "relatif?ihvp.damping=0.1&normalisation=loss",
        "arnoldi?ihvp.rank=20",
    ],
)
def test_settings_that_a_method_has_are_taken(name):
    [spec] = resolve_all([name])
    assert spec.given == name


def test_what_is_no_method_is_refused():
    with pytest.raises(TypeError, match="must be a list"):
        resolve_all("dualview")
    with pytest.raises(TypeError, match="A method is a name"):
        resolve_all({"own": 3})
    with pytest.raises(TypeError, match="A method is a name"):
        resolve(keras.Model)


def test_two_runs_describe_a_method_alike_and_other_settings_otherwise():
    def described(make):
        return resolve_all({"own": make})[0].described

    projection = functools.partial(GradCos, projection=GaussianProjection(8))
    assert described(projection) == described(functools.partial(GradCos, projection=GaussianProjection(8)))
    assert described(projection) != described(functools.partial(GradCos, projection=GaussianProjection(9)))
    assert described(DualView) == "deel_dualview.calculators.dualview.DualView"
    assert "0x" not in described(projection)
    assert resolve_all(["dualview?K=1&kernel=linear"])[0].described == "dualview(K=1, kernel='linear')"


def test_a_calculator_a_class_and_a_spec_are_methods(problem):
    ready = DualView(problem[0], problem[1])
    assert resolve(ready).build(problem[0], problem[1], None) is ready
    assert resolve(DualView).name == "DualView"
    spec = MethodSpec("own", "graddot")
    assert resolve(spec) is spec


def test_a_named_method_keeps_its_settings():
    spec = resolve(
        NamedMethod("dualview", None, {"K": 0.5}), defaults={"dualview": {"K": 1.0, "kernel": "cosine"}}
    )
    assert spec.settings == {"K": 0.5, "kernel": "cosine"}


def test_what_makes_no_calculator_is_refused(problem):
    with pytest.raises(TypeError, match="A method is a name"):
        resolve(lambda model, train_set, *, store: 3).build(problem[0], problem[1], None)


def make(K):
    return lambda model, train_set, *, store: DualView(model, train_set, K=K, store=store)


@pytest.mark.parametrize(
    "method",
    [make(0.1), functools.partial(GradCos, projection=object()), functools.partial(DualView, K=np.ones(3))],
)
def test_settings_that_results_could_not_be_told_apart_by_are_refused(method):
    with pytest.raises(ValueError, match="distinguished"):
        resolve(method).described


class TestRandom:
    def test_an_example_has_the_same_answer_in_any_batch(self, problem):
        calculator = RandomInfluence(problem[0], problem[1])
        whole, parts = (
            np.concatenate(
                list(
                    calculator.estimate_influence_values_in_batches(
                        tf.data.Dataset.from_tensor_slices(problem[2]).batch(size)
                    )
                )
            )
            for size in (6, 4)
        )
        np.testing.assert_array_equal(whole, parts)
        assert len(np.unique(whole)) == whole.size

    def test_top_k_sorts_the_values(self, problem):
        calculator = RandomInfluence(problem[0], problem[1], seed=3)
        queries = tf.data.Dataset.from_tensor_slices(problem[2]).batch(6)
        values = next(iter(calculator.estimate_influence_values_in_batches(queries))).numpy()
        _, indices = next(iter(calculator.top_k_indices(queries, 4)))
        np.testing.assert_array_equal(indices, np.argsort(-values, axis=1)[:, :4])

    def test_self_influence_has_a_number_an_example(self, problem):
        values = np.concatenate(list(RandomInfluence(problem[0], problem[1]).compute_influence_values()))
        assert values.shape == (40,) and len(np.unique(values)) == 40

    def test_vectors_and_negative_seeds_are_refused(self, problem):
        with pytest.raises(ValueError, match="no influence vectors"):
            RandomInfluence(problem[0], problem[1]).compute_influence_vector()
        with pytest.raises(ValueError, match="negative"):
            RandomInfluence(problem[0], problem[1], seed=-1)
