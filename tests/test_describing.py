"""What methods of one's own are told apart by: all that their values depend on, nothing that changes between runs."""

import dataclasses
import functools
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from deel_dualview import DualView, GaussianProjection, InfluenceModel, NamedMethod
from deel_dualview.calculators.describing import describe_maker
from deel_dualview.calculators.method_specs import read_entrants

FACTOR = 1


def reads_a_global(model, train_set, *, store=None):
    return DualView(model, train_set, K=FACTOR, store=store)


def another():
    return 1


def calls_another(model, train_set, *, store=None):
    return DualView(model, train_set, K=another(), store=store)


class Maker:
    scale = 1

    def __init__(self, K):
        self.K = K

    def __call__(self, model, train_set, *, store=None):
        return DualView(model, train_set, K=self.K * self.scale, store=store)

    def make(self, model, train_set, *, store=None):
        return self(model, train_set, store=store)


@dataclasses.dataclass
class DataMaker:
    K: object

    def __call__(self, model, train_set, *, store=None):
        return DualView(model, train_set, K=self.K, store=store)


def closure(K):
    return lambda model, train_set, store=None: DualView(model, train_set, K=K, store=store)


def nested(K):
    def inner():
        return K

    return lambda model, train_set, store=None: DualView(model, train_set, K=inner(), store=store)


def default(K):
    def make(model, train_set, store=None, K=K):
        return DualView(model, train_set, K=K, store=store)

    return make


def keyword_default(K):
    def make(model, train_set, *, store=None, K=K):
        return DualView(model, train_set, K=K, store=store)

    return make


@pytest.mark.parametrize(
    "make",
    [
        Maker,
        DataMaker,
        closure,
        nested,
        default,
        keyword_default,
        lambda K: Maker(K).make,
        lambda K: Maker([{"deep": (K,)}]),
        lambda K: Maker(np.full(3, K)),
        lambda K: closure(tf.constant(K)),
        lambda K: functools.partial(DualView, K=K),
        lambda K: functools.partial(closure(K), store=None),
        lambda K: closure(functools.partial(DualView, K=K)),
        lambda K: NamedMethod("dualview", None, {"K": K}),
        lambda K: DataMaker(GaussianProjection(round(10 * K))),
    ],
)
def test_equal_settings_are_described_alike_and_others_otherwise(make):
    assert describe_maker(make(0.1)) == describe_maker(make(0.1)) != describe_maker(make(0.2))


def test_an_object_that_cannot_be_hashed_is_a_method():
    [entrant] = read_entrants({"own": DataMaker(0.1)})
    assert not entrant.needs_checkpoints and entrant.maker(None) is entrant.method


def test_a_global_variable_counts(monkeypatch):
    before = describe_maker(reads_a_global)
    assert describe_maker(reads_a_global) == before
    monkeypatch.setitem(globals(), "FACTOR", 2)
    assert describe_maker(reads_a_global) != before


def test_a_function_of_the_same_module_counts(monkeypatch):
    before = describe_maker(calls_another)
    assert describe_maker(calls_another) == before
    monkeypatch.setitem(globals(), "another", lambda: 2)
    assert describe_maker(calls_another) != before


def test_the_code_of_a_class_counts(monkeypatch):
    before = describe_maker(Maker), describe_maker(Maker(1))
    monkeypatch.setattr(Maker, "__call__", lambda self, model, train_set, store=None: None)
    after = describe_maker(Maker), describe_maker(Maker(1))
    assert before[0] != after[0] and before[1] != after[1]


def test_models_count_by_their_weights_and_cycles_end():
    def model(seed):
        keras.utils.set_random_seed(seed)
        return InfluenceModel(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]))

    texts = [describe_maker(DataMaker(model(seed))) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    keras_model = model(0).model
    assert describe_maker(DataMaker(keras_model)) == describe_maker(DataMaker(keras_model))
    maker = Maker(1)
    maker.K = maker
    assert describe_maker(maker) == describe_maker(maker)


def test_classes_of_the_package_go_by_their_name():
    assert describe_maker(DualView) == "deel_dualview.calculators.dualview.DualView"


def test_another_process_describes_alike(tmp_path):
    """Hashes of text, and with them the order of sets, differ from process to process."""
    (tmp_path / "makers.py").write_text(
        textwrap.dedent("""
            def make(model, train_set, store=None, names={"a", "b", "c", "d"}):
                return None if model in {"e", "f", "g", "h", "i", "j", "k", "l", "m", "n"} else names
        """)
    )
    program = "import makers; from deel_dualview.evaluation import describing as d; "
    program += "print(d.describe_maker(makers.make))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": str(seed), "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    assert len(texts) == 1 and "makers.make of" in texts.pop()
