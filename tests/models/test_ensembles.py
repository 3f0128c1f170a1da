"""Tree ensembles as Keras models: their outputs, to the last digits, and what is refused."""

import lightgbm
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import xgboost
from sklearn import ensemble, pipeline, preprocessing
from sklearn.compose import make_column_transformer
from tree_cases import BOOSTED, FORESTS, INPUTS, NUMBERS, OF_LIGHTGBM, OF_SKLEARN, QUERIES, SMALL, THREE, TWO
from tree_cases import xgboost_classifier as boosted

from deel_dualview import InfluenceModel, SquaredError, TreeEnsembleModel, to_dataset


@pytest.fixture(scope="module")
def booster():
    return boosted()


SOME = ["xgboost, three classes", "lightgbm, DART", "scikit-learn, forest of numbers"]


@pytest.mark.parametrize(
    ("case", "features"), [*((case, "leaves") for case in BOOSTED), *((case, "trees") for case in SOME)]
)
def test_features_times_head_are_the_raw_outputs(case, features):
    make, raw_outputs, labels = BOOSTED[case]
    fitted = make()
    keras_model = TreeEnsembleModel(fitted, features=features)
    rows = keras_model.leaves(QUERIES).numpy().astype(np.float64)
    model = InfluenceModel(keras_model)
    expected = np.reshape(raw_outputs(fitted, QUERIES), (len(QUERIES), -1))
    kernel, bias = model.split.head.weights()
    found = rows @ kernel.numpy() + (0 if bias is None else bias.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(keras_model(QUERIES).numpy(), expected, rtol=1e-6, atol=1e-6)
    assert model.is_classifier is (labels is not NUMBERS)
    assert isinstance(model.objective, SquaredError) is (labels is NUMBERS)


@pytest.mark.parametrize("case", FORESTS)
def test_a_forest_of_classes_gives_its_probabilities_and_has_no_linear_head(case):
    fitted = FORESTS[case]()
    model = InfluenceModel(TreeEnsembleModel(fitted))
    expected = fitted.predict_proba(QUERIES)
    np.testing.assert_allclose(tf.nn.softmax(model.logits(QUERIES)).numpy(), expected, atol=1e-6)
    assert model.head is None and model.num_classes == expected.shape[1]


def test_a_random_forest_of_lightgbm_averages_its_trees_as_its_probabilities_do():
    settings = {**OF_LIGHTGBM, "boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5}
    fitted = lightgbm.LGBMClassifier(**settings).fit(INPUTS, THREE)
    found = tf.nn.softmax(TreeEnsembleModel(fitted)(QUERIES)).numpy()
    np.testing.assert_allclose(found, fitted.predict_proba(QUERIES), atol=1e-6)


def test_every_example_is_in_one_leaf_of_each_tree(booster):
    rows = TreeEnsembleModel(booster).leaves(QUERIES).numpy()
    assert set(np.unique(rows)) == {0.0, 1.0} and (rows.sum(axis=1) == SMALL["n_estimators"]).all()


def test_no_example_gives_no_features(booster):
    assert TreeEnsembleModel(booster)(INPUTS[:0]).shape == (0, 1)


def test_missing_numbers_come_as_a_number_that_stands_for_them():
    inputs = np.where(INPUTS > 1.0, np.nan, INPUTS)
    fitted = boosted(inputs=inputs)
    found = TreeEnsembleModel(fitted, missing=-99.0)(np.nan_to_num(inputs, nan=-99.0))
    np.testing.assert_allclose(found[:, 0], fitted.predict(inputs, output_margin=True), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def table():
    """Categories of texts and of numbers, one missing, and a truth."""
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "rate": generator.normal(size=80),
            "job": pd.Categorical(generator.choice(["cook", "nurse", "smith"], 80)),
            "rooms": pd.Categorical(generator.integers(3, 6, 80)),
            "owner": generator.random(80) > 0.5,
        }
    )
    frame.loc[3, "job"] = np.nan
    return frame, ((frame["job"] == "cook") | (frame["rate"] > 1)).to_numpy().astype(np.int64)


def with_categories(library, frame, labels):
    if library == "xgboost":
        fitted = xgboost.XGBClassifier(**SMALL, enable_categorical=True).fit(frame, labels)
        return fitted, fitted.predict(frame, output_margin=True)
    if library == "lightgbm":
        fitted = lightgbm.LGBMClassifier(**OF_LIGHTGBM).fit(frame, labels)
        return fitted, fitted.predict(frame, raw_score=True)
    encode = make_column_transformer(
        (preprocessing.OneHotEncoder(handle_unknown="ignore"), ["job", "rooms"]), remainder="passthrough"
    )
    fitted = pipeline.make_pipeline(encode, ensemble.GradientBoostingClassifier(**OF_SKLEARN))
    return fitted.fit(frame, labels), fitted.decision_function(frame)


@pytest.mark.parametrize("library", ["xgboost", "lightgbm", "a pipeline of scikit-learn"])
def test_a_table_keeps_its_categories(library, table):
    frame, labels = table
    fitted, expected = with_categories(library, frame, labels)
    model = TreeEnsembleModel(fitted, table=frame[:1])
    inputs, _ = next(iter(to_dataset((frame, labels), model)))
    assert set(inputs) == set(frame.columns)
    np.testing.assert_allclose(model(inputs)[:, 0], expected, rtol=1e-6, atol=1e-6)


def pilots(frame):
    jobs = frame["job"].cat.add_categories(["pilot"])
    return frame.assign(job=jobs.where(frame.index > 2, "pilot"))


@pytest.mark.parametrize("library", ["xgboost", "lightgbm"])
def test_a_category_that_the_table_lacks_is_an_error_also_of_a_later_batch(library, table):
    frame, labels = table
    model = InfluenceModel(TreeEnsembleModel(with_categories(library, frame, labels)[0], table=frame[:1]))
    (inputs, _), *_ = to_dataset((frame, labels), model)
    model.prepare(inputs)
    (inputs, _), *_ = to_dataset((pilots(frame), labels), model)
    with pytest.raises(ValueError, match=r"column='job', categories=\['pilot'\]"):
        model.features(inputs)


def test_a_pipeline_has_its_own_rule_for_new_categories(table):
    frame, labels = table
    fitted, _ = with_categories("scikit-learn", frame, labels)
    model = TreeEnsembleModel(fitted, table=frame[:1])
    (inputs, _), *_ = to_dataset((pilots(frame), labels), model)
    expected = fitted.decision_function(pilots(frame))
    np.testing.assert_allclose(model(inputs)[:, 0], expected, rtol=1e-6, atol=1e-6)


def test_a_number_that_stands_for_missing_ones_is_no_new_category(table):
    frame, labels = table
    fitted, _ = with_categories("lightgbm", frame, labels)
    model = TreeEnsembleModel(fitted, table=frame[:1], missing=-1)
    (inputs, _), *_ = to_dataset((frame, labels), model)
    rooms = inputs["rooms"].numpy().copy()
    rooms[:5] = -1
    lacking = frame.assign(rooms=frame["rooms"].where(frame.index >= 5))
    expected = fitted.predict(lacking, raw_score=True)
    np.testing.assert_allclose(model({**inputs, "rooms": rooms})[:, 0], expected, rtol=1e-6, atol=1e-6)


def test_a_model_of_the_same_trees_is_the_same_and_of_another_threshold_is_not():
    fitted = lightgbm.LGBMClassifier(**OF_LIGHTGBM).fit(INPUTS, TWO)
    text = fitted.booster_.model_to_string()
    line = next(line for line in text.splitlines() if line.startswith("threshold="))
    # Its text has the lengths of its parts, too.
    number = line.partition("=")[2].split()[0]
    moved = text.replace(
        line, line.replace(number, number[:4] + str((int(number[4]) + 1) % 10) + number[5:], 1)
    )
    own, same, other = (
        InfluenceModel(TreeEnsembleModel(lightgbm.Booster(model_str=content))).fingerprint
        for content in (text, text, moved)
    )
    assert own == same != other


@pytest.mark.parametrize(
    ("make", "quiet"),
    [
        (xgboost.XGBClassifier, {}),
        (lightgbm.LGBMClassifier, {"verbose": -1}),
        (ensemble.RandomForestClassifier, {}),
    ],
    ids=["xgboost", "lightgbm", "scikit-learn"],
)
def test_columns_are_taken_by_name_where_the_ensemble_knows_them(make, quiet):
    frame = pd.DataFrame(INPUTS, columns=[f"column {number}" for number in range(INPUTS.shape[1])])
    model = TreeEnsembleModel(
        make(n_estimators=3, max_depth=2, **quiet).fit(frame, np.arange(len(frame)) % 2)
    )
    (inputs, _), *_ = to_dataset((frame[frame.columns[::-1]], np.zeros(len(frame), int)), model)
    np.testing.assert_allclose(inputs.numpy(), INPUTS[: len(inputs)], rtol=1e-6)
    with pytest.raises(ValueError, match="that the model was fitted to"):
        to_dataset((frame.rename(columns=str.upper), np.zeros(len(frame), int)), model)


def test_columns_without_names_are_taken_as_they_come(booster):
    assert TreeEnsembleModel(booster).column_names is None


def test_later_training_of_the_ensemble_does_not_change_the_model():
    fitted = boosted()
    model = TreeEnsembleModel(fitted)
    before = model(QUERIES).numpy()
    fitted.fit(INPUTS, 1 - TWO)
    np.testing.assert_array_equal(model(QUERIES).numpy(), before)


def test_a_loss_that_is_not_known_is_given():
    fitted = xgboost.XGBRegressor(**SMALL, objective="count:poisson").fit(INPUTS, TWO)
    with pytest.raises(ValueError, match="loss_function="):
        TreeEnsembleModel(fitted)
    model = InfluenceModel(TreeEnsembleModel(fitted, loss_function="log_cosh"))
    assert "log_cosh" in repr(model.objective)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ensemble.HistGradientBoostingClassifier(), "LightGBM"),
        (lambda: "model.json", "fitted tree ensemble"),
        (lambda: xgboost.XGBClassifier(), "fit"),
        (lambda: lightgbm.LGBMClassifier(), "fit"),
        (lambda: ensemble.RandomForestClassifier(), "fit"),
        (lambda: xgboost.XGBClassifier(booster="gblinear").fit(INPUTS, TWO), "gbtree"),
        (
            lambda: xgboost.XGBRegressor(**SMALL, multi_strategy="multi_output_tree").fit(INPUTS, INPUTS),
            "one_output_per_tree",
        ),
        (
            lambda: ensemble.GradientBoostingClassifier(
                init=ensemble.RandomForestClassifier(n_estimators=2), **OF_SKLEARN
            ).fit(INPUTS, TWO),
            "init",
        ),
    ],
    ids=["histograms", "a file", "xgboost", "lightgbm", "forest", "linear", "vectors", "first model"],
)
def test_what_has_no_leaves_is_refused(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TreeEnsembleModel(make())


def test_linear_trees_are_found_out_on_the_first_batch():
    model = TreeEnsembleModel(lightgbm.LGBMRegressor(**OF_LIGHTGBM, linear_tree=True).fit(INPUTS, NUMBERS))
    with pytest.raises(ValueError, match="linear trees"):
        model(QUERIES)


@pytest.mark.parametrize(
    "settings", [{"features": "nodes"}, {"table": "jobs"}, {"loss_function": 3}], ids=str
)
def test_bad_settings_are_refused(booster, settings):
    with pytest.raises((TypeError, ValueError), match=next(iter(settings))):
        TreeEnsembleModel(booster, **settings)
