"""Methods under evaluation: names with settings, and what makes calculators."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import (
    Checkpoints,
    DualSVMSolver,
    DualView,
    ExactIHVP,
    FirstOrderInfluenceCalculator,
    GaussianProjection,
    GradCos,
    InfluenceModel,
    MemoryStore,
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


def make_two(first, model, train_set, *, store):
    return GradCos(model, train_set, store=store)


def test_positional_arguments_of_a_partial_distinguish_methods():
    described = {resolve(functools.partial(make_two, number)).described for number in (1, 2)}
    assert len(described) == 2


def test_the_order_of_settings_distinguishes_nothing():
    described = {
        resolve(name).described for name in ("dualview?K=1&kernel=linear", "dualview?kernel=linear&K=1")
    }
    assert described == {"dualview(K=1, kernel='linear')"}


def test_an_object_whose_repr_is_its_address_distinguishes_nothing():
    class Nameless:
        def __repr__(self):
            return f"<Nameless at {hex(id(self))}>"

    with pytest.raises(ValueError, match="distinguished"):
        resolve(functools.partial(DualView, K=Nameless())).described  # noqa: B018


def test_settings_given_with_a_name_win_over_defaults_of_the_use():
    defaults = {"dualview": {"K": 1.0, "kernel": "cosine"}, "graddot": {"weights": "all"}}
    assert resolve("dualview?K=0.5", defaults=defaults).settings == {"K": 0.5, "kernel": "cosine"}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("dualview?K=1", "dualview?K=1"),
        (NamedMethod("graddot", None, {"weights": "all"}), "graddot"),
        (DualView, "DualView"),
        (functools.partial(functools.partial(make_two, 1), 2), "make_two"),
    ],
    ids=["text", "named method", "class", "partial"],
)
def test_a_method_is_called_by_its_own_name_unless_it_is_given_one(given, name):
    assert [resolve(given).name, resolve(given, "mine").name] == [name, "mine"]


RUN = Checkpoints([], [], [])


@pytest.mark.parametrize("given", ["trak", NamedMethod("trak")], ids=["text", "named method"])
def test_checkpoints_of_the_run_reach_methods_by_name(given):
    assert resolve(given, checkpoints=RUN).checkpoints is RUN
    [spec] = resolve_all([given], checkpoints=RUN)
    assert spec.checkpoints is RUN


def test_a_named_method_keeps_its_checkpoints():
    own = Checkpoints([], [], [])
    assert resolve(NamedMethod("tracin", own), checkpoints=RUN).checkpoints is own


def test_a_method_that_needs_checkpoints_is_refused_without():
    with pytest.raises(ValueError, match="tracin needs checkpoints"):
        resolve("tracin").check_checkpoints()
    assert resolve("tracin").with_checkpoints(RUN).check_checkpoints().checkpoints is RUN
    assert resolve("trak").check_checkpoints().checkpoints is None


def test_checkpoints_change_the_values_of_methods_that_may_use_them():
    assert [resolve(name).needs_checkpoints for name in ("tracin", "trak", "graddot")] == [True, True, False]
    assert not resolve(DualView).needs_checkpoints


def test_checkpoints_reach_the_calculator(problem):
    models = [InfluenceModel(keras.models.clone_model(problem[0].model)), problem[0]]
    checkpoints = Checkpoints(models, [0.1, 0.1], [1, 2])
    made = resolve("trak", checkpoints=checkpoints).build(problem[0], problem[1], None)
    assert list(made.gradients.models) == models


@pytest.mark.parametrize("given", ["graddot", "first-order", GradCos], ids=["text", "inverse", "class"])
def test_the_store_reaches_the_calculator(given, problem):
    store = MemoryStore()
    calculator = resolve(given).build(problem[0], problem[1], store)
    assert calculator.store is store
    assert getattr(calculator, "ihvp", calculator).store is store


def test_a_spec_can_build_twice_with_projections_of_its_own(problem):
    spec = resolve("sim?projection=GaussianProjection(8)")
    first, second = (spec.build(problem[0], problem[1], None).gradients.projection for _ in range(2))
    assert first is not second and spec.settings["projection"] not in (first, second)


@pytest.mark.parametrize("name", ["dualview?K=1&K=2", "dualview?K", "dualview?K=1&kernel"])
def test_settings_are_pairs_and_each_once(name):
    with pytest.raises(ValueError, match="Settings are NAME=VALUE, each once"):
        resolve(name)


def test_settings_may_be_quoted_as_in_an_address():
    assert resolve("graddot?weights=%5B%27a%26b%27%5D").settings == {"weights": ["a&b"]}


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="A method is one of dualview, .*random.*'influence'"):
        resolve("influence?K=1")


@pytest.mark.parametrize(
    ("methods", "error", "message"),
    [
        ([], ValueError, "At least one method"),
        (["graddot", GradCos, "graddot"], ValueError, "different names"),
        ({" ": "graddot"}, ValueError, "A method needs a name"),
        ({1: "graddot"}, TypeError, "go by names"),
    ],
    ids=["none", "twice", "blank", "number"],
)
def test_methods_go_by_names_of_their_own(methods, error, message):
    with pytest.raises(error, match=message):
        resolve_all(methods)


def test_brackets_keep_commas_too():
    assert split_names("gradcos?weights=['a','b'],random") == ["gradcos?weights=['a','b']", "random"]


def test_a_report_names_the_inverse_of_a_calculator(problem):
    ihvp = ExactIHVP(problem[0], problem[1])
    made = FirstOrderInfluenceCalculator(problem[0], problem[1], ihvp)
    assert resolve(made).describe(made) == (
        "FirstOrderInfluenceCalculator",
        "influence that FirstOrderInfluenceCalculator defines",
        "FirstOrderInfluenceCalculator with ExactIHVP",
    )


def test_a_report_describes_every_dualview_alike(problem):
    made = DualView(problem[0], problem[1])
    assert resolve(DualView).describe(made) == resolve("dualview").describe(made)


def test_a_hint_says_which_methods_have_an_inverse_of_their_own():
    with pytest.raises(ValueError, match="Only influence functions with an inverse"):
        resolve("dualview?ihvp.damping=1")


def test_parts_of_settings_take_keywords():
    assert read_value("DualSVMSolver(max_iterations=7)") == DualSVMSolver(max_iterations=7)


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
