"""Every argument is checked before any data is read: the training set here cannot be."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

import deel_dualview as dv
from deel_dualview.evaluation import record_training

BAD_NUMBERS = ("1", float("nan"), -1.0, np.array([1.0, 2.0]), None)
BAD_COUNTS = (2.5, 0, -1, "3", True, np.array([2, 3]))
BAD_WORDS = ("word", 3, np.array(["a", "b"]), None)
BAD_WEIGHTS = ("first", 3, [], ["nowhere"], ["hidden", "hidden"], [3], np.array(["hidden"]))
COMMON = {
    "target": ("predictions", 1.5, True, -1, 3, np.array([0, 1]), None, [0]),
    "store": ("directory", 3),
    "model": ("model.keras", None, 3),
}
GRADIENTS = {"weights": BAD_WEIGHTS, "function": BAD_WORDS, "projection": (128, "gaussian")}
PRECONDITIONERS = ("sgd", "adam", 3)  # the model is not compiled
INVERSE = {
    "model": COMMON["model"],
    "store": COMMON["store"],
    "weights": BAD_WEIGHTS,
    "curvature": BAD_WORDS,
    "damping": ("0.1", float("nan"), -1.0, np.array([1.0, 2.0])),
    "regularisation": BAD_NUMBERS,
}
BOUNDARY = {
    "model": COMMON["model"],
    "max_iterations": BAD_COUNTS,
    "tolerance": BAD_NUMBERS,
    "num_candidates": BAD_COUNTS,
}
WITH_INVERSE = COMMON | {"ihvp": ("exact", 3)}
RATES = ("0.1", [0.1, 0.2], -1.0, float("nan"), [None], np.array([0.1, 0.2]))
BAD_INDICES = ("flat", dv.FaissIndex, 3)
ARGUMENTS = {
    dv.DualView: COMMON
    | {
        "K": ("1", float("nan"), float("inf"), -1.0, 0, True, np.array([1.0, 2.0])),
        "kernel": BAD_WORDS[:-1],
        "bias": ("no", 1, None, np.array([True, False])),
        "solver": ("x", dv.DualSVMSolver, 3),
        "index": BAD_INDICES,
    },
    dv.FeatureSimilarity: COMMON | {"similarity": BAD_WORDS, "index": BAD_INDICES},
    dv.RepresenterPointL2: COMMON | {"lambda_regularization": BAD_NUMBERS, "fit_to": BAD_WORDS},
    dv.RepresenterPointLJE: COMMON | {"gamma": BAD_NUMBERS, "damping": BAD_NUMBERS},
    dv.GradDot: COMMON | GRADIENTS | {"preconditioner": PRECONDITIONERS, "index": BAD_INDICES},
    dv.GradCos: COMMON
    | GRADIENTS
    | {"normalize": BAD_WORDS, "preconditioner": PRECONDITIONERS, "index": BAD_INDICES},
    dv.TracIn: COMMON
    | GRADIENTS
    | {"learning_rates": RATES, "preconditioner": PRECONDITIONERS, "index": BAD_INDICES},
    dv.Trak: COMMON
    | {
        "weights": BAD_WEIGHTS,
        "projection": (128,),
        "relative_damping": BAD_NUMBERS[:-1],
        "index": BAD_INDICES,
    },
    dv.FirstOrderInfluenceCalculator: WITH_INVERSE,
    dv.SecondOrderInfluenceCalculator: WITH_INVERSE,
    dv.LeverageCorrectedInfluenceCalculator: WITH_INVERSE,
    dv.ArnoldiInfluenceCalculator: WITH_INVERSE,
    dv.RelatIF: WITH_INVERSE | {"normalisation": BAD_WORDS},
    dv.SampleBoundaryCalculator: BOUNDARY,
    dv.WeightsBoundaryCalculator: BOUNDARY | {"weights": BAD_WEIGHTS},
    dv.UnrolledInfluenceCalculator: COMMON
    | {"training": (None, "training", 3), "function": BAD_WORDS, "queries_at_once": BAD_COUNTS},
    dv.ExactIHVP: INVERSE,
    dv.IdentityIHVP: {name: INVERSE[name] for name in ("model", "store", "weights")},
    dv.ConjugateGradientDescentIHVP: INVERSE
    | {"max_iterations": BAD_COUNTS, "tolerance": BAD_NUMBERS, "preconditioner": ("jacobi", 3)},
    dv.LissaIHVP: INVERSE
    | {
        "scale": ("1", -1.0, float("nan")),
        "batch_size": BAD_COUNTS,
        "max_iterations": BAD_COUNTS,
        "tolerance": BAD_NUMBERS,
        "seed": ("0", -1, 1.5),
    },
    dv.ArnoldiIHVP: INVERSE
    | {
        "rank": BAD_COUNTS,
        "num_iterations": BAD_COUNTS,
        "num_curvature_examples": BAD_COUNTS,
        "seed": ("0", -1, 1.5),
    },
    dv.EkfacIHVP: {name: INVERSE[name] for name in ("model", "store", "weights", "damping", "regularisation")}
    | {"num_samples": BAD_COUNTS, "seed": ("0", -1, 1.5)},
    dv.EkfacConjugateGradientIHVP: {
        name: INVERSE[name] for name in ("model", "store", "weights", "damping", "regularisation")
    }
    | {
        "num_samples": BAD_COUNTS,
        "num_curvature_examples": BAD_COUNTS,
        "max_iterations": BAD_COUNTS,
        "tolerance": BAD_NUMBERS,
        "seed": ("0", -1, 1.5),
    },
}
CASES = [
    pytest.param(cls, name, value, id=f"{cls.__name__}-{name}-{value!r}")
    for cls, arguments in ARGUMENTS.items()
    for name, values in arguments.items()
    for value in values
]


@functools.cache
def small_model():
    return keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "relu", name="hidden"), layers.Dense(3, name="last")]
    )


@functools.cache
def recorded():
    """A recorded training of the small model, of one step."""
    train = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype=np.float32), np.arange(4) % 3)).batch(4)
    settings = {"optimizer": keras.optimizers.SGD(0.1), "loss_function": "sparse_categorical_crossentropy"}
    return record_training(small_model(), train, epochs=1, batch_size=4, **settings)


def unreadable():
    """A training set of the right form that must not be read."""

    def examples():
        pytest.fail("The data was read before the arguments were checked.")
        yield

    signature = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None,), tf.int64))
    return tf.data.Dataset.from_generator(examples, output_signature=signature)


@pytest.mark.parametrize(("cls", "name", "value"), CASES)
def test_a_bad_argument_is_refused_before_data_is_read(cls, name, value):
    settings = {} if name == "model" else {name: value}
    if name == "rank":
        settings["num_iterations"] = 3
    if cls is dv.UnrolledInfluenceCalculator:
        settings = {"training": recorded()} | settings
    with pytest.raises((TypeError, ValueError), match=r"Received|must|Needed|needs"):
        cls(value if name == "model" else small_model(), unreadable(), **settings)


def test_every_argument_of_every_class_is_tried():
    """All but the training set, and what has its own tests: the inverse of a calculator."""
    import inspect

    renamed = {"models": "model"}
    for cls, arguments in ARGUMENTS.items():
        names = [renamed.get(name, name) for name in inspect.signature(cls).parameters]
        assert set(names) - {"train_set"} == set(arguments), cls.__name__


def test_all_calculators_and_inverses_are_tried():
    kinds = (dv.BaseInfluenceCalculator, dv.ExactIHVP.__base__)
    classes = [value for value in (getattr(dv, name) for name in dv.__all__) if isinstance(value, type)]
    missing = [cls for cls in classes if issubclass(cls, kinds) and cls not in ARGUMENTS]
    # An ensemble takes calculators, and no training set.
    assert missing == [dv.BaseInfluenceCalculator, dv.Ensemble]


@pytest.mark.parametrize("k", [2.5, 0, "3", None, True, 61])
@pytest.mark.parametrize("search", ["top_k", "top_k_indices"])
def test_a_bad_k_is_refused_before_queries_are_read(k, search):
    inputs = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    train = tf.data.Dataset.from_tensor_slices((inputs, np.arange(60) % 3)).batch(30)
    calculator = dv.FeatureSimilarity(small_model(), train)
    with pytest.raises((TypeError, ValueError), match="k"):
        getattr(calculator, search)(unreadable(), k=k)


@pytest.mark.parametrize("name", ["audit", "compare"])
def test_audit_and_compare_refuse_a_bad_k_before_data_is_read(name):
    with pytest.raises((TypeError, ValueError), match="k"):
        getattr(dv, name)(small_model(), unreadable(), unreadable(), k=2.5)


@pytest.mark.parametrize("layer", [3, ["hidden"], np.array([1, 2]), "nowhere"])
def test_a_feature_layer_that_is_none_is_refused_when_the_model_is_wrapped(layer):
    with pytest.raises((TypeError, ValueError), match="feature_layer"):
        dv.InfluenceModel(small_model(), layer)
