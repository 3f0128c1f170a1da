"""Small tree ensembles of every library, and the raw outputs that their own library gives."""

import lightgbm
import numpy as np
import xgboost
from sklearn import ensemble

generator = np.random.default_rng(0)
INPUTS = generator.normal(size=(90, 4)).astype(np.float32)
QUERIES = generator.normal(size=(12, 4)).astype(np.float32)
TWO = (INPUTS[:, 0] + INPUTS[:, 1] + 0.7 * generator.normal(size=90) > 0).astype(np.int64)
THREE = np.digitize(INPUTS[:, 0] + 0.7 * generator.normal(size=90), [-0.5, 0.5])
NUMBERS = (2 * INPUTS[:, 0] + INPUTS[:, 1]).astype(np.float32)
SMALL = {"n_estimators": 4, "max_depth": 3, "n_jobs": 1, "random_state": 0}
OF_LIGHTGBM = {**SMALL, "min_child_samples": 5, "verbose": -1}
OF_SKLEARN = {"n_estimators": 4, "max_depth": 3, "random_state": 0}


def xgboost_classifier(labels=TWO, inputs=INPUTS, **settings):
    return xgboost.XGBClassifier(**(SMALL | settings)).fit(inputs, labels)


def stopped_early():
    settings = SMALL | {"n_estimators": 40, "early_stopping_rounds": 2, "learning_rate": 1.0}
    held_out = [(INPUTS[60:], THREE[60:])]
    return xgboost.XGBClassifier(**settings).fit(INPUTS[:60], THREE[:60], eval_set=held_out, verbose=False)


def lightgbm_stopped_early():
    stop = lightgbm.early_stopping(2, verbose=False)
    data = lightgbm.Dataset(INPUTS[:60], THREE[:60])
    settings = {
        "objective": "multiclass",
        "num_class": 3,
        "verbose": -1,
        "num_threads": 1,
        "learning_rate": 0.9,
    }
    held_out = lightgbm.Dataset(INPUTS[60:], THREE[60:], reference=data)
    return lightgbm.train(settings, data, 40, valid_sets=[held_out], callbacks=[stop])


def of_xgboost(model, inputs):
    return model.predict(inputs, output_margin=True)


def of_booster(booster, inputs):
    return booster.predict(xgboost.DMatrix(inputs), output_margin=True)


def of_lightgbm(model, inputs):
    return model.predict(inputs, raw_score=True)


def decision(model, inputs):
    return model.decision_function(inputs)


def predicted(model, inputs):
    return model.predict(inputs)


def probabilities(model, inputs):
    return model.predict_proba(inputs)


BOOSTED = {
    "xgboost, two classes": (xgboost_classifier, of_xgboost, TWO),
    "xgboost, three classes": (lambda: xgboost_classifier(THREE), of_xgboost, THREE),
    "xgboost, regression": (lambda: xgboost.XGBRegressor(**SMALL).fit(INPUTS, NUMBERS), of_xgboost, NUMBERS),
    "xgboost, parallel trees": (
        lambda: xgboost.XGBRFClassifier(**SMALL).fit(INPUTS, THREE),
        of_xgboost,
        THREE,
    ),
    "xgboost, DART": (lambda: xgboost_classifier(booster="dart", rate_drop=0.5), of_xgboost, TWO),
    "xgboost, early stopping": (stopped_early, of_xgboost, THREE),
    "xgboost, Booster": (
        lambda: xgboost.train(
            {"objective": "multi:softprob", "num_class": 3, "nthread": 1},
            xgboost.DMatrix(INPUTS, label=THREE),
            3,
        ),
        of_booster,
        THREE,
    ),
    "lightgbm, two classes": (
        lambda: lightgbm.LGBMClassifier(**OF_LIGHTGBM).fit(INPUTS, TWO),
        of_lightgbm,
        TWO,
    ),
    "lightgbm, DART": (
        lambda: lightgbm.LGBMRegressor(**OF_LIGHTGBM, boosting_type="dart").fit(INPUTS, NUMBERS),
        of_lightgbm,
        NUMBERS,
    ),
    "lightgbm, Booster, early stopping": (lightgbm_stopped_early, of_lightgbm, THREE),
    "scikit-learn, two classes": (
        lambda: ensemble.GradientBoostingClassifier(**OF_SKLEARN).fit(INPUTS, TWO),
        decision,
        TWO,
    ),
    "scikit-learn, three classes": (
        lambda: ensemble.GradientBoostingClassifier(**OF_SKLEARN).fit(INPUTS, THREE),
        decision,
        THREE,
    ),
    "scikit-learn, regression": (
        lambda: ensemble.GradientBoostingRegressor(**OF_SKLEARN).fit(INPUTS, NUMBERS),
        predicted,
        NUMBERS,
    ),
    "scikit-learn, forest of numbers": (
        lambda: ensemble.RandomForestRegressor(**OF_SKLEARN).fit(
            INPUTS, np.stack([NUMBERS, -INPUTS[:, 2]], 1)
        ),
        predicted,
        NUMBERS,
    ),
}
FORESTS = {
    "forest": lambda: ensemble.RandomForestClassifier(**OF_SKLEARN).fit(INPUTS, THREE),
    "extra trees": lambda: ensemble.ExtraTreesClassifier(**OF_SKLEARN).fit(INPUTS, TWO),
}
