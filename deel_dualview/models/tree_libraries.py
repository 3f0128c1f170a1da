"""Fitted tree ensembles of XGBoost, LightGBM and scikit-learn as leaves and what each adds to the raw outputs."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from deel_dualview._checks import describe, require

TreeLoss = Literal["binary", "categorical", "squared error"]
"""What boosting minimised: cross-entropy of one logit, of several, or squared error."""

_OF_XGBOOST: dict[str, TreeLoss] = {
    "binary:logistic": "binary",
    "binary:logitraw": "binary",
    "multi:softmax": "categorical",
    "multi:softprob": "categorical",
    "reg:squarederror": "squared error",
}
# As LightGBM writes objectives down: another `sigmoid` makes the raw output a multiple of the logit.
_OF_LIGHTGBM: dict[str, TreeLoss] = {
    "binary sigmoid:1": "binary",
    "multiclass": "categorical",
    "regression": "squared error",
}
_FORESTS = ("RandomForestClassifier", "ExtraTreesClassifier", "RandomForestRegressor", "ExtraTreesRegressor")


class TreeEnsemble(NamedTuple):
    """T trees whose raw outputs are sums of the values of the leaves that an example ends in.

    Attributes:
        apply: from a table of b rows to the node that each ends in, by tree, shape (b, T).
        raw_outputs: from a table to what the library itself gives, shape (b, c).
        nodes: of each tree, the numbers of its leaves, ascending.
        values: of each tree, what its leaves add to the outputs, shape (leaves, c), float64.
        loss: what was minimised; None where that is none of those known.
        gives_probabilities: whether the outputs are averages of class probabilities, not logits.
        num_columns: of the table.
        digest: of all that the trees compute.
    """

    apply: Callable[[Any], np.ndarray]
    raw_outputs: Callable[[Any], np.ndarray]
    nodes: list[np.ndarray]
    values: list[np.ndarray]
    loss: TreeLoss | None
    gives_probabilities: bool
    num_columns: int
    digest: str


def column_names(booster: Any) -> list[str] | None:
    """Return the names of the columns that an ensemble (or Pipeline) was fitted to, None where these had none."""
    for attribute in ("feature_names_in_", "feature_names", "feature_name"):
        try:
            names = getattr(booster, attribute)
        except AttributeError:  # XGBoost's estimators raise it where there were none
            continue
        names = names() if callable(names) else names
        if names is not None:
            # LightGBM invents names.
            is_named = any(name != f"Column_{number}" for number, name in enumerate(names))
            return [str(name) for name in names] if is_named else None
    return None


def read_trees(booster: Any) -> TreeEnsemble:
    """Return the trees that a fitted ensemble predicts with; a copy, which later training does not change.

    Of XGBoost's and LightGBM's estimators these are the trees up to the best iteration of early stopping, as in their
    own `predict`; of a `Booster` those that its `predict` takes by default (of XGBoost all).

    Raises:
        TypeError: `booster` is no such ensemble.
        ValueError: it is not fitted, or its outputs are no sums of values of leaves.
    """
    names = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(booster).__mro__]
    if "xgboost.XGBModel" in names:
        _check_fitted(booster, hasattr(booster, "_Booster"))
        best = getattr(booster, "best_iteration", None) if _stopped_early(booster) else None
        own = booster.get_booster()
        return _read_xgboost(own.copy() if best is None else own[: best + 1], booster.missing)
    if "xgboost.Booster" in names:
        return _read_xgboost(booster.copy(), np.nan)
    if "lightgbm.LGBMModel" in names:
        _check_fitted(booster, hasattr(booster, "n_features_"))
        return _read_lightgbm(booster.booster_)
    if "lightgbm.Booster" in names:
        return _read_lightgbm(booster)
    if {"sklearn.GradientBoostingClassifier", "sklearn.GradientBoostingRegressor"} & set(names):
        _check_fitted(booster, hasattr(booster, "estimators_"))
        return _read_gradient_boosting(copy.deepcopy(booster))
    if {f"sklearn.{name}" for name in _FORESTS} & set(names):
        _check_fitted(booster, hasattr(booster, "estimators_"))
        return _read_forest(copy.deepcopy(booster))
    instead = (
        " HistGradientBoosting does not say in which leaf an example ends: LightGBM's estimators are the same method, "
        "and do."
        if any("HistGradientBoosting" in name for name in names)
        else ""
    )
    raise TypeError(
        describe(
            "`booster` must be a fitted tree ensemble: a Booster or estimator of XGBoost or LightGBM, or a "
            f"GradientBoosting, RandomForest or ExtraTrees estimator of scikit-learn.{instead}",
            {"type": type(booster).__name__},
        )
    )


def _check_fitted(booster: Any, is_fitted: bool) -> None:
    require(
        is_fitted, "The ensemble must be fitted: call its `fit` first.", {"booster": type(booster).__name__}
    )


def _stopped_early(booster: Any) -> bool:
    try:
        return booster.best_iteration is not None
    except AttributeError:
        return False


def _read_xgboost(booster: Any, missing: float) -> TreeEnsemble:
    import xgboost

    content = bytes(booster.save_raw(raw_format="json"))
    learner = json.loads(content)["learner"]
    gradient_booster = learner["gradient_booster"]
    require(
        gradient_booster["name"] in ("gbtree", "dart"),
        "The booster must be one of trees: booster='gbtree' or 'dart'.",
        {"booster": gradient_booster["name"]},
    )
    model = gradient_booster.get("gbtree", gradient_booster)["model"]
    trees, classes = model["trees"], model["tree_info"]
    require(
        all(int(tree["tree_param"]["size_leaf_vector"]) <= 1 for tree in trees),
        "Each tree must be of one output: train with multi_strategy='one_output_per_tree'.",
        {"multi_strategy": "multi_output_tree"},
    )
    weights = gradient_booster.get("weight_drop") or [1.0] * len(trees)
    num_outputs = max(1, int(learner["learner_model_param"]["num_class"]), max(classes, default=0) + 1)
    nodes, values = [], []
    for tree, output, weight in zip(trees, classes, weights, strict=True):
        leaves = np.flatnonzero(np.array(tree["left_children"]) == -1)
        nodes.append(leaves)
        values.append(
            _of_one_output(weight * np.array(tree["split_conditions"])[leaves], output, num_outputs)
        )

    def matrix(table: Any) -> Any:
        named = {} if hasattr(table, "columns") else {"feature_names": booster.feature_names}
        kinds = {} if hasattr(table, "columns") else {"feature_types": booster.feature_types}
        return xgboost.DMatrix(table, missing=missing, enable_categorical=True, **named, **kinds)

    return TreeEnsemble(
        lambda table: booster.predict(matrix(table), pred_leaf=True),
        lambda table: booster.predict(matrix(table), output_margin=True),
        nodes,
        values,
        _OF_XGBOOST.get(learner["objective"]["name"]),
        False,
        booster.num_features(),
        _digest([content]),
    )


def _read_lightgbm(booster: Any) -> TreeEnsemble:
    best = booster.best_iteration if booster.best_iteration > 0 else -1
    text = booster.model_to_string(num_iteration=best)
    own = type(booster)(model_str=text)
    dump = own.dump_model()
    num_outputs, trees = dump["num_tree_per_iteration"], dump["tree_info"]
    # Random forests of LightGBM average what others add up, but for their raw scores.
    scale = num_outputs / len(trees) if dump["average_output"] else 1.0
    values = [
        _of_one_output(
            scale * np.array([own.get_leaf_output(number, leaf) for leaf in range(tree["num_leaves"])]),
            number % num_outputs,
            num_outputs,
        )
        for number, tree in enumerate(trees)
    ]
    objective = dump.get("objective", "")
    if objective.startswith("multiclass "):
        objective = "multiclass"
    return TreeEnsemble(
        lambda table: own.predict(table, pred_leaf=True),
        lambda table: scale * own.predict(table, raw_score=True),
        [np.arange(len(rows)) for rows in values],
        values,
        _OF_LIGHTGBM.get(objective),
        False,
        own.num_feature(),
        _digest([text.encode()]),
    )


def _read_gradient_boosting(estimator: Any) -> TreeEnsemble:
    constant = estimator.init_ == "zero" or type(estimator.init_).__name__.startswith("Dummy")
    require(
        constant,
        "The first prediction must be a constant, init=None or init='zero': that of another estimator is no sum of "
        "leaves.",
        {"init": estimator.init_},
    )
    trees = estimator.estimators_.ravel()
    num_outputs = estimator.estimators_.shape[1]
    nodes = [np.flatnonzero(tree.tree_.children_left == -1) for tree in trees]
    values = [
        _of_one_output(
            estimator.learning_rate * tree.tree_.value[leaves, 0, 0], number % num_outputs, num_outputs
        )
        for number, (tree, leaves) in enumerate(zip(trees, nodes, strict=True))
    ]
    is_classifier = hasattr(estimator, "classes_")
    known = {"log_loss": "binary" if num_outputs == 1 else "categorical", "squared_error": "squared error"}
    return TreeEnsemble(
        lambda table: estimator.apply(_as_fitted(estimator, table)).reshape(len(table), len(trees)),
        lambda table: (estimator.decision_function if is_classifier else estimator.predict)(
            _as_fitted(estimator, table)
        ),
        nodes,
        values,
        known.get(estimator.loss),  # type: ignore[arg-type]
        False,
        estimator.n_features_in_,
        _digest_of_trees(trees, values),
    )


def _read_forest(estimator: Any) -> TreeEnsemble:
    is_classifier = hasattr(estimator, "classes_")
    require(
        not is_classifier or estimator.n_outputs_ == 1,
        "A forest of classes must predict one label: fit one for each label.",
        {"n_outputs": estimator.n_outputs_},
    )
    trees = estimator.estimators_
    nodes = [np.flatnonzero(tree.tree_.children_left == -1) for tree in trees]
    values = []
    for tree, leaves in zip(trees, nodes, strict=True):
        rows = tree.tree_.value[leaves]
        rows = rows[:, 0] / rows[:, 0].sum(axis=1, keepdims=True) if is_classifier else rows[:, :, 0]
        values.append(rows / len(trees))
    return TreeEnsemble(
        lambda table: estimator.apply(_as_fitted(estimator, table)),
        lambda table: (estimator.predict_proba if is_classifier else estimator.predict)(
            _as_fitted(estimator, table)
        ),
        nodes,
        values,
        None if is_classifier else "squared error",
        is_classifier,
        estimator.n_features_in_,
        _digest_of_trees(trees, values),
    )


def _of_one_output(values: np.ndarray, output: int, num_outputs: int) -> np.ndarray:
    """Return the values of a tree that adds to one output as rows (leaves, c), float64."""
    rows = np.zeros((len(values), num_outputs))
    rows[:, output] = values
    return rows


def _as_fitted(estimator: Any, table: Any) -> Any:
    """Return a table with the names of columns that scikit-learn warns of where they lack."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None or hasattr(table, "columns"):
        return table
    import pandas as pd

    return pd.DataFrame(table, columns=names)


def _digest_of_trees(trees: Sequence[Any], values: Sequence[np.ndarray]) -> str:
    parts = []
    for tree, rows in zip(trees, values, strict=True):
        inner = tree.tree_
        parts += [inner.children_left, inner.children_right, inner.feature, inner.threshold, rows]
    return _digest([np.ascontiguousarray(part).tobytes() for part in parts])


def _digest(parts: Sequence[bytes]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part)
    return found.hexdigest()
