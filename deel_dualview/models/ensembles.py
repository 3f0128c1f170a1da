"""TreeEnsembleModel: gradient-boosted trees and forests as a Keras model, with a linear head on their leaves."""

from __future__ import annotations

from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf

from deel_dualview._checks import check_choice, describe, require
from deel_dualview.models.keras_losses import LossFunction, check_loss_function
from deel_dualview.models.tree_libraries import TreeEnsemble, TreeLoss, column_names, read_trees

TreeFeatures = Literal["leaves", "trees"]
"""One indicator for each leaf, or what each tree adds to the output."""

_LOSSES: dict[TreeLoss, keras.losses.Loss] = {
    "binary": keras.losses.BinaryCrossentropy(from_logits=True),
    "categorical": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "squared error": keras.losses.MeanSquaredError(),
}
# Of the largest raw output: XGBoost and Keras add in float32, each in an order of its own.
_TOLERANCE = 1e-5
_MOST_NAMED = 10


class TreeEnsembleModel(keras.Model):
    """A fitted tree ensemble as a Keras model, to be explained as any other: leaves, then a linear layer.

    The features of an example are which leaves it ends in, one of each tree; the last layer holds the values of the
    leaves, and the base score as its bias. So features times head is the raw output of the ensemble (the sum over
    trees, before any sigmoid or softmax), which is checked on the first batch. Nothing is trained: a method that
    retrains the last layer, or differentiates in it, takes the structure of the trees for given.

    The raw output of a forest of classes is the average of its trees' class probabilities; its logits are their
    logarithms, which are not linear in the leaves. Such a model has features and no linear head: `DualView`,
    `RepresenterPointL2`, `FeatureSimilarity`, audits and label issues take it, gradients in the last layer do not.

    Labels are class indices 0 to c - 1, in the order of the ensemble's `classes_`.

    Args:
        booster: a `Booster` or estimator of XGBoost or LightGBM, a GradientBoosting, RandomForest or ExtraTrees
            estimator of scikit-learn, or a scikit-learn `Pipeline` that ends in one. A copy is kept.
        features: `"leaves"` for one indicator for each leaf, d leaves in all; or `"trees"` for what each tree adds to
            its output, few numbers where there are many leaves, under which two leaves of equal value are the same.
        table: a DataFrame as the ensemble was fitted to (a row will do), where its columns are not all numbers: inputs
            are then dicts of columns, as DataFrames become, and get its types and categories back. Categories that it
            lacks are an error; of a Pipeline its first steps decide.
        missing: number that stands for a missing one in inputs, since these must be finite; none by default.
        loss_function: the Keras loss of the raw outputs that was minimised, where that is neither cross-entropy nor
            squared error.

    Raises:
        TypeError: `booster` is no such ensemble, or `loss_function` no loss.
        ValueError: an ensemble that is not fitted, whose loss is unknown, or whose outputs are no sums of values of
            leaves (linear trees, say).

    Example:
        model = deel_dualview.TreeEnsembleModel(xgboost.XGBClassifier().fit(x_train, y_train))
        calculator = deel_dualview.DualView(model, train_set)
    """

    def __init__(
        self,
        booster: Any,
        *,
        features: TreeFeatures = "leaves",
        table: Any = None,
        missing: float | None = None,
        loss_function: LossFunction | None = None,
    ) -> None:
        check_choice("features", features, get_args(TreeFeatures))
        check_loss_function(loss_function)
        steps = getattr(booster, "steps", None)
        last = booster if steps is None else steps[-1][1]
        trees = read_trees(last)
        require(
            loss_function is not None or trees.loss is not None or trees.gives_probabilities,
            "What the ensemble minimised is neither cross-entropy of its outputs as logits nor squared error: pass the "
            "loss of its raw outputs, TreeEnsembleModel(booster, loss_function=...).",
            {"booster": type(last).__name__},
        )
        super().__init__(name=type(last).__name__.lower(), autocast=False)
        self.column_names = None if table is not None else column_names(booster)
        self.loss_function = loss_function
        self._inputs = _Inputs(booster[:-1] if steps and len(steps) > 1 else None, table, missing)
        self.leaves = _Leaves(trees, self._inputs, features, name=features)
        num_columns = trees.num_columns if self._inputs.transformer is None else None
        self._structure = self._inputs.structure(num_columns)
        kernel, bias = self.leaves.head()
        if trees.gives_probabilities:
            self._probabilities = tf.constant(kernel)
            self.head = None
        else:
            self.head = keras.layers.Dense(
                kernel.shape[1], use_bias=bool(bias.any()), dtype="float32", name="leaf_values"
            )
            self.head.build((None, len(kernel)))
            self.head.set_weights([kernel, bias] if bias.any() else [kernel])
        if trees.loss is not None:
            self.compile(loss=_LOSSES[trees.loss])

    @property
    def feature_layer(self) -> keras.Layer | None:
        """Where an `InfluenceModel` takes the features by default; None for the input of the last Dense layer."""
        return self.leaves if self.head is None else None

    @property
    def _inputs_struct(self) -> Any:
        """What inputs are like, where Keras and `structure_of` look for it."""
        return self._structure

    def call(self, inputs: Any, training: bool = False) -> tf.Tensor:
        """Return the raw outputs of b examples, shape (b, c), float32."""
        del training
        features = self.leaves(inputs)
        return tf.matmul(features, self._probabilities) if self.head is None else self.head(features)


class _Inputs:
    """Turns batches of inputs into the tables that the ensemble was fitted to.

    Args:
        transformer: the first steps of a Pipeline, or None.
        table: a DataFrame with the columns and their types, or None for rows of numbers.
        missing: number that stands for a missing one, or None.
    """

    def __init__(self, transformer: Any, table: Any, missing: float | None) -> None:
        if table is not None and not (hasattr(table, "columns") and hasattr(table, "dtypes")):
            raise TypeError(describe("`table` must be a pandas DataFrame.", {"type": type(table).__name__}))
        self.transformer, self.missing = transformer, missing
        self.dtypes = None if table is None else {str(name): table[name].dtype for name in table.columns}

    def structure(self, num_columns: int | None) -> Any:
        """Return the symbolic inputs: a row of numbers, or a dict of columns."""
        if self.dtypes is None:
            return keras.KerasTensor((None, num_columns), "float64", name="rows of numbers")
        return {
            name: keras.KerasTensor((None,), "float64" if _is_number(dtype) else "string", name=name)
            for name, dtype in self.dtypes.items()
        }

    def __call__(self, columns: list[np.ndarray]) -> Any:
        """Return the table of a batch: of one array (b, w), or of the columns in the order of their sorted names."""
        if self.dtypes is None:
            table: Any = self._with_missing(columns[0])
        else:
            import pandas as pd

            named = dict(zip(sorted(self.dtypes), columns, strict=True))
            table = pd.DataFrame(
                {name: self._column(name, named[name], dtype) for name, dtype in self.dtypes.items()}
            )
        return table if self.transformer is None else self.transformer.transform(table)

    def _with_missing(self, values: np.ndarray) -> np.ndarray:
        if self.missing is None:
            return values
        values = values.astype(np.float64)
        return np.where(values == self.missing, np.nan, values)

    def _column(self, name: str, values: np.ndarray, dtype: Any) -> Any:
        if values.dtype.kind in "OSU":
            values = np.array([_text(value) for value in values], object)
        elif values.dtype.kind in "biuf":
            values = self._with_missing(values)
        if not hasattr(dtype, "categories"):
            return values
        import pandas as pd

        codes = {_key(category): code for code, category in enumerate(dtype.categories)}
        found = np.array([codes.get(_key(value), -1) for value in values], np.int64)
        unseen = pd.unique(pd.Series(values[(found < 0) & ~pd.isna(values)]))
        if not len(unseen):
            return pd.Categorical.from_codes(found, dtype=dtype)
        require(
            self.transformer is not None,
            "Inputs have categories that the column of `table` lacks, so that the trees do not know them: give a "
            "`table` with all categories that the ensemble was fitted to (a row of it keeps them), and write a missing "
            "value ('' of texts) in the place of new ones.",
            {"column": name, "categories": unseen.tolist()[:_MOST_NAMED]},
        )
        # The first steps of a pipeline have a rule of their own for them.
        return np.array(
            [
                value if code < 0 else dtype.categories[code]
                for value, code in zip(values, found, strict=True)
            ],
            object,
        )


class _Leaves(keras.layers.Layer):
    """Features of b examples: indicators of leaves (b, d), or what each tree adds to its outputs."""

    def __init__(self, trees: TreeEnsemble, inputs: _Inputs, kind: TreeFeatures, name: str) -> None:
        super().__init__(name=name, dtype="float32", autocast=False, trainable=False)
        self._trees, self._table_of, self.kind = trees, inputs, kind
        self._values = np.concatenate(trees.values)
        sizes = np.array([len(nodes) for nodes in trees.nodes])
        self._first_leaf = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        widths = [int(nodes.max(initial=0)) + 1 for nodes in trees.nodes]
        self._first_node = np.concatenate([[0], np.cumsum(widths)[:-1]]).astype(np.int64)
        self._leaf_of_node = np.zeros(sum(widths), np.int32)
        for nodes, node, leaf in zip(trees.nodes, self._first_node, self._first_leaf, strict=True):
            self._leaf_of_node[node + nodes] = leaf + np.arange(len(nodes))
        # Outputs that a tree adds anything to, as (tree, output).
        self._added = np.array([(values != 0).any(axis=0) for values in trees.values])
        self._is_verified = False

    @property
    def num_trees(self) -> int:
        """Number of trees T: of its features, as many are 1."""
        return len(self._trees.nodes)

    def head(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the kernel (d, c) and the bias (c,) by which the features give the raw outputs, float32."""
        constant = np.full((1, self._trees.num_columns), np.nan)
        try:
            outputs, leaves = self._trees.raw_outputs(constant), self._leaf_ids(constant)
        except ValueError:
            # Not every estimator of scikit-learn takes missing numbers.
            constant = np.zeros_like(constant)
            outputs, leaves = self._trees.raw_outputs(constant), self._leaf_ids(constant)
        bias = np.reshape(outputs, -1).astype(np.float64) - self._values[leaves[0]].sum(axis=0)
        bias[np.abs(bias) < 1e-12 * np.abs(self._values).sum(axis=0)] = 0
        self._bias = bias.astype(np.float32)
        if self.kind == "leaves":
            return self._values.astype(np.float32), self._bias
        return np.eye(self._values.shape[1], dtype=np.float32)[np.nonzero(self._added)[1]], self._bias

    def call(self, inputs: Any) -> tf.Tensor:
        columns = tf.nest.flatten(inputs)
        if all(hasattr(column, "numpy") for column in columns):
            # Here an error stays the one that it is.
            ids = tf.constant(self._verified_ids(*(column.numpy() for column in columns)))
        else:
            ids = tf.numpy_function(self._verified_ids, columns, tf.int32)
        ids.set_shape((columns[0].shape[0], self.num_trees))
        if self.kind == "trees":
            added = tf.gather(tf.constant(self._values, tf.float32), ids)
            return tf.gather(tf.reshape(added, (-1, self._added.size)), np.flatnonzero(self._added), axis=1)
        num_rows = tf.shape(ids)[0]
        rows = tf.repeat(tf.range(num_rows), self.num_trees)
        places = tf.stack([rows, tf.reshape(ids, (-1,))], axis=1)
        found = tf.scatter_nd(places, tf.ones_like(rows, tf.float32), (num_rows, len(self._values)))
        return tf.ensure_shape(found, (None, len(self._values)))

    def get_config(self) -> dict[str, Any]:
        """Return what the features depend on, by which models are distinguished."""
        inputs = self._table_of
        return {
            **super().get_config(),
            "trees": self._trees.digest,
            "kind": self.kind,
            "missing": inputs.missing,
            "table": None
            if inputs.dtypes is None
            else {name: repr(kind) for name, kind in inputs.dtypes.items()},
        }

    def _verified_ids(self, *columns: np.ndarray) -> np.ndarray:
        """Return the leaves (b, T) of a batch; on the first one their values must add up to the raw outputs."""
        if len(columns[0]) == 0:
            return np.zeros((0, self.num_trees), np.int32)
        table = self._table_of(list(columns))
        ids = self._leaf_ids(table)
        if not self._is_verified:
            found = self._values[ids].sum(axis=1) + self._bias
            expected = np.reshape(self._trees.raw_outputs(table), found.shape)
            error = np.abs(found - expected).max()
            require(
                bool(error <= _TOLERANCE * max(1.0, np.abs(expected).max())),
                "The raw outputs must be the sums of the values of the leaves, and they are not: of linear trees, for "
                "instance, a leaf is no number.",
                {"largest difference": float(error)},
            )
            self._is_verified = True
        return ids

    def _leaf_ids(self, table: Any) -> np.ndarray:
        nodes = np.reshape(self._trees.apply(table), (-1, self.num_trees)).astype(np.int64)
        return self._leaf_of_node[self._first_node + nodes]


def _is_number(dtype: Any) -> bool:
    """Return whether a column of a DataFrame is given as numbers."""
    own = getattr(dtype, "categories", None)
    return getattr(dtype if own is None else own.dtype, "kind", "O") in "biuf"


def _text(value: Any) -> str | None:
    """Return a text, None for an empty one, which stands for a missing value."""
    return (value.decode() if isinstance(value, bytes) else str(value)) or None


def _key(value: Any) -> float | str | None:
    """Return what values of a category are compared by: numbers may have become texts, or texts of them numbers."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
